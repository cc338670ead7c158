package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// completionTimeout is how long a shell waits for names. It is told none when they do not come in time.
const completionTimeout = 2 * time.Second

// words are the values of flags that take one of a few.
var words = map[string][]string{
	"format": {"binary", "copy", "csv", "json"}, "compress": {"none", "zstd"},
	"log-level": {"debug", "info", "warn", "error"}, "log-format": {"text", "json"},
}

// complete teaches the shells what the commands below a command take: names of replications and tables, which the server at
// --addr is asked for, directories, and words.
func complete(cmd *cobra.Command, environment []string) {
	for _, child := range cmd.Commands() {
		complete(child, environment)
	}
	_, arguments, _ := strings.Cut(cmd.Use, " ")
	client := cmd.Flags().Lookup("addr")
	switch {
	case cmd.Name() == "create", client == nil && !strings.HasPrefix(arguments, "DIRECTORY"):
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	case strings.HasPrefix(arguments, "NAME") && cmd.Parent().Name() == "set":
		cmd.ValidArgsFunction = names(cmd, environment, true, setNames)
	case strings.HasPrefix(arguments, "NAME") && cmd.Parent().Name() == "push":
		cmd.ValidArgsFunction = names(cmd, environment, true, pushNames)
	case strings.HasPrefix(arguments, "NAME"):
		cmd.ValidArgsFunction = names(cmd, environment, true, replicationNames)
	case strings.HasPrefix(arguments, "DIRECTORY"):
		cmd.ValidArgsFunction = directories
	}
	if cmd.Flags().Lookup("out") != nil {
		register(cmd, "out", directories)
	}
	for _, flag := range []string{"table", "exclude-table"} {
		if cmd.Flags().Lookup(flag) != nil && client != nil && client.DefValue == primaryGRPC {
			register(cmd, flag, names(cmd, environment, false, tableNames))
		}
	}
	for flag, values := range words {
		if cmd.Flags().Lookup(flag) != nil {
			register(cmd, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		}
	}
}

func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func register(cmd *cobra.Command, flag string, function cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, function); err != nil {
		panic(err) // the flag is there, and has none yet
	}
}

// names completes with what a server lists. single says that one of them is expected. A server that does not answer is no error: the
// shell is in the middle of a line.
func names(cmd *cobra.Command, environment []string, single bool, list func(context.Context, *grpc.ClientConn) ([]string, error)) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if single && len(args) > 0 || bindVariables(cmd.Flags(), environment) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		connect := connectionOf(cmd.Flags())
		options, err := connect.options()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		conn, err := rpc.Dial(cmd.Flags().Lookup("addr").Value.String(), options...)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer conn.Close()
		parent := cmd.Context()
		if parent == nil {
			parent = context.Background()
		}
		ctx, cancel := context.WithTimeout(parent, completionTimeout)
		defer cancel()
		found, err := list(ctx, conn)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(found, func(name string) bool { return !strings.HasPrefix(name, begun) }), cobra.ShellCompDirectiveNoFileComp
	}
}

func replicationNames(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	answer, err := applierv1.NewApplierServiceClient(conn).ListReplications(ctx, &applierv1.ListReplicationsRequest{})
	var found []string
	for _, r := range answer.GetReplications() {
		found = append(found, r.GetName())
	}
	return found, err
}

func pushNames(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	answer, err := pushv1.NewPushServiceClient(conn).ListPushes(ctx, &pushv1.ListPushesRequest{})
	var found []string
	for _, p := range answer.GetPushes() {
		found = append(found, p.GetName())
	}
	return found, err
}

func setNames(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	answer, err := loggerv1.NewLoggerServiceClient(conn).ListSets(ctx, &loggerv1.ListSetsRequest{})
	var found []string
	for _, s := range answer.GetSets() {
		found = append(found, s.GetName())
	}
	return found, err
}

func tableNames(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	answer, err := inventoryv1.NewInventoryServiceClient(conn).GetInventory(ctx, &inventoryv1.GetInventoryRequest{}, rpc.LargeAnswer())
	var found []string
	for _, t := range answer.GetTables() {
		if name := tableText(t.GetSchema(), t.GetName()); !strings.ContainsAny(name, "\t\n") {
			found = append(found, name)
		}
	}
	return found, err
}
