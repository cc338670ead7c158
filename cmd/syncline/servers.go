package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier"
	"github.com/seed0419d559/syncline/services/inventory"
	"github.com/seed0419d559/syncline/services/logger"
)

// Default addresses by role.
const (
	primaryGRPC, primaryHTTP = "127.0.0.1:7400", "127.0.0.1:7480"
	replicaGRPC, replicaHTTP = "127.0.0.1:7500", "127.0.0.1:7580"
)

// role is a server command: the services that it runs.
type role struct {
	name, short, long, example string
	services                   []string
}

var roles = []role{
	{"primary", "Serve a primary: logger and inventory", "Runs beside the primary's PostgreSQL: captures its changes into the change log, serves them to replicas,\nand gives them their first copy.", "--postgres postgres://localhost/shop --data /var/lib/syncline", []string{node.RoleLogger, node.RoleInventory}},
	{"replica", "Serve a replica: applier", "Runs beside the replica's PostgreSQL: makes first copies and applies the changes of primaries.", "--postgres postgres://localhost/shop", []string{node.RoleApplier}},
	{"node", "Serve both roles of one database", "Runs logger, inventory and applier for one database that is primary and replica.", "--postgres postgres://localhost/shop --data /var/lib/syncline", []string{node.RoleLogger, node.RoleInventory, node.RoleApplier}},
	{"logger", "Serve the logger alone, or control one", "Captures a primary's changes into the change log and serves them. The commands below it control a logger that runs.", "--postgres postgres://localhost/shop --data /var/lib/syncline --inventory db1:7401", []string{node.RoleLogger}},
	{"inventory", "Serve the inventory alone", "Gives a primary's tables, snapshots and dumps.", "--postgres postgres://localhost/shop --grpc 0.0.0.0:7401 --logger db1:7400 --plaintext", []string{node.RoleInventory}},
	{"applier", "Serve the applier alone", "Makes first copies and applies the changes of primaries.", "--postgres postgres://localhost/shop", []string{node.RoleApplier}},
}

func (r *role) has(service string) bool { return slices.Contains(r.services, service) }

func serverCommands() []*cobra.Command {
	list := make([]*cobra.Command, len(roles))
	for i := range roles {
		list[i] = newServerCommand(&roles[i])
	}
	return list
}

// serverFlags are the flags of a server command.
type serverFlags struct {
	postgres, grpc, http, advertise string
	logFormat, logLevel             string
	pprof                           bool
	protect                         protectFlags
	inventory, loggerAddress        string // of services in other processes
	logger                          logger.Config
	applier                         applier.Config
}

func newServerCommand(r *role) *cobra.Command {
	f := &serverFlags{logger: logger.DefaultConfig(), applier: applier.DefaultConfig()}
	cmd := &cobra.Command{
		Use: r.name, Short: r.short, Long: r.long, Example: "  syncline " + r.name + " " + r.example, Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), r, f, cmd.OutOrStdout()) },
	}
	f.register(cmd.Flags(), r)
	if r.name == node.RoleInventory {
		addInventoryClient(cmd, &f.postgres, &f.protect.connect)
	}
	if r.name == node.RoleLogger {
		cmd.AddCommand(loggerCommands()...)
	}
	return cmd
}

func (f *serverFlags) register(flags *pflag.FlagSet, r *role) {
	grpcDefault, httpDefault := primaryGRPC, primaryHTTP
	if r.has(node.RoleApplier) && !r.has(node.RoleLogger) {
		grpcDefault, httpDefault = replicaGRPC, replicaHTTP
	}
	flags.StringVar(&f.postgres, "postgres", "", "URL of the database: postgres://USER:PASSWORD@HOST:PORT/DATABASE (needed)")
	flags.StringVar(&f.grpc, "grpc", grpcDefault, "address to serve gRPC on")
	flags.StringVar(&f.http, "http", httpDefault, "address to serve REST, metrics and health on; empty for none")
	flags.StringVar(&f.advertise, "advertise", "", "HOST:PORT at which others reach this server; what they asked at when empty")
	f.protect.register(flags)
	flags.BoolVar(&f.pprof, "pprof", false, "serve profiles at /debug/pprof/ on the HTTP address")
	flags.StringVar(&f.logFormat, "log-format", "text", "text or json")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	if r.has(node.RoleLogger) {
		c := &f.logger
		flags.StringVar(&c.Dir, "data", "", "directory of the change log (needed)")
		flags.StringVar(&c.Slot, "slot", c.Slot, "name of the replication slot")
		flags.StringVar(&c.Publication, "publication", c.Publication, "name of the publication")
		patternsFlag(flags, &c.Include, "table", "capture only these tables: schema.table, schema.*; may be repeated")
		patternsFlag(flags, &c.Exclude, "exclude-table", "do not capture these tables")
		patternsFlag(flags, &c.InsertOnly, "insert-only-table", "capture only inserts and truncates of these tables, so they need no key")
		flags.Int64Var(&c.MaxRowBytes, "max-row-bytes", c.MaxRowBytes, "largest row that is captured")
		flags.Int64Var(&c.DecodingMemory, "decoding-memory", c.DecodingMemory, "bytes of transactions that PostgreSQL's walsender holds, unless logical_decoding_work_mem is set there; 0 for its default")
		flags.DurationVar(&c.MaxAge, "log-max-age", c.MaxAge, "how long changes are kept; 0 for ever")
		flags.Int64Var(&c.MaxBytes, "log-max-bytes", c.MaxBytes, "size of the change log from which its oldest changes go; 0 for no limit")
		flags.Int64Var(&c.KeepBytes, "log-keep-bytes", c.KeepBytes, "size of the change log up to which what a follower has not applied is kept for longer; 0 to keep nothing for followers")
		flags.DurationVar(&c.FollowerTimeout, "follower-timeout", c.FollowerTimeout, "how long a follower that is not connected counts after it was last heard of")
		flags.BoolVar(&c.LogRemoteChanges, "log-remote-changes", c.LogRemoteChanges, "capture what an applier brings to this primary, too")
	}
	if r.has(node.RoleLogger) && !r.has(node.RoleInventory) {
		flags.StringVar(&f.inventory, "inventory", "", "HOST:PORT of this primary's inventory, told to replicas that ask")
	}
	if r.has(node.RoleInventory) && !r.has(node.RoleLogger) {
		flags.StringVar(&f.loggerAddress, "logger", "", "HOST:PORT of this primary's logger (needed)")
	}
	if r.has(node.RoleApplier) {
		flags.DurationVar(&f.applier.RetryCap, "retry-max", f.applier.RetryCap, "longest pause between two attempts after a fault")
		flags.IntVar(&f.applier.MaxRunning, "max-running", f.applier.MaxRunning, "how many replications run at a time; the others wait for their turn")
		flags.DurationVar(&f.applier.MaxTurn, "max-turn", f.applier.MaxTurn, "how long a replication that is behind runs while others wait")
		flags.DurationVar(&f.applier.EventsMaxAge, "events-max-age", f.applier.EventsMaxAge, "how long the run log keeps events")
		flags.IntVar(&f.applier.EventsMaxCount, "events-max-count", f.applier.EventsMaxCount, "how many events of each replication the run log keeps")
	}
}

// check refuses what is missing before anything is connected to.
func (f *serverFlags) check(r *role) error {
	var missing []string
	if f.postgres == "" {
		missing = append(missing, "--postgres (SYNCLINE_POSTGRES)")
	}
	if r.has(node.RoleLogger) && f.logger.Dir == "" {
		missing = append(missing, "--data (SYNCLINE_DATA)")
	}
	if r.has(node.RoleInventory) && !r.has(node.RoleLogger) && f.loggerAddress == "" {
		missing = append(missing, "--logger (SYNCLINE_LOGGER)")
	}
	if len(missing) > 0 {
		return usageError{fmt.Errorf("%s needed; see `syncline %s --help`", strings.Join(missing, " and "), r.name)}
	}
	if err := f.protect.check(); err != nil {
		return err
	}
	if err := f.protect.encrypted("--grpc", f.grpc); err != nil {
		return err
	}
	return f.protect.encrypted("--http", f.http)
}

// service is what every service of the product is.
type service interface {
	Run(ctx context.Context) error
	Register(registrar grpc.ServiceRegistrar)
}

// checker is a service that finds out before it serves what a user has to mend.
type checker interface {
	Check(ctx context.Context) error
}

// prepare makes the database the node's home for each role.
func (f *serverFlags) prepare(ctx context.Context, r *role) (id node.Identity, err error) {
	if r.has(node.RoleLogger) || r.has(node.RoleInventory) {
		if id, err = node.Prepare(ctx, f.postgres, node.Primary); err != nil {
			return id, err
		}
	}
	if r.has(node.RoleApplier) {
		id, err = node.Prepare(ctx, f.postgres, node.Replica)
	}
	return id, err
}

// build makes the services of a role and their error tables. Other servers are reached with the options, and this process itself
// with own.
func (f *serverFlags) build(r *role, id node.Identity, options, own []rpc.DialOption, log *slog.Logger) ([]service, rpc.Table, error) {
	var list []service
	var table rpc.Table
	if r.has(node.RoleLogger) {
		c := f.logger
		c.PostgresURL, c.ServerID, c.Logger = f.postgres, id.ServerID, log
		s, err := logger.New(c)
		if err != nil {
			return nil, nil, err
		}
		list, table = append(list, s), append(table, logger.Errors()...)
	}
	if r.has(node.RoleInventory) {
		c := inventory.DefaultConfig()
		c.PostgresURL, c.ServerID, c.LoggerAddress, c.Log = f.postgres, id.ServerID, f.loggerAddress, log
		c.LoggerOptions = options
		if r.has(node.RoleLogger) {
			c.LoggerAddress, c.LoggerOptions = ownAddress(f.grpc), own
		}
		s, err := inventory.New(c)
		if err != nil {
			return nil, nil, err
		}
		list, table = append(list, s), append(table, inventory.Errors()...)
	}
	if r.has(node.RoleApplier) {
		c := f.applier
		c.PostgresURL, c.ServerID, c.SystemIdentifier, c.Database, c.Log = f.postgres, id.ServerID, id.SystemIdentifier, id.Database, log
		c.Dial, c.Version = options, version
		s, err := applier.New(c)
		if err != nil {
			return nil, nil, err
		}
		list, table = append(list, s), append(table, applier.Errors()...)
	}
	return f.addPusher(r, id, list, table, options, own, log)
}

// ownAddress is where this process reaches its own listener.
func ownAddress(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// describe is what GetServer answers.
func (f *serverFlags) describe(r *role, id node.Identity) node.Description {
	return node.Description{
		Identity: id, Roles: r.services, Version: version, Start: time.Now(),
		Listen: f.grpc, Advertise: f.advertise, Logger: f.loggerAddress, Inventory: f.inventory,
	}
}
