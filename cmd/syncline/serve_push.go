package main

import (
	"log/slog"

	"google.golang.org/grpc"

	"github.com/seed0419d559/syncline/internal/node"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/pusher"
)

// addPusher adds the pusher to a process that has all that a target asks for: logger and inventory. Targets reach these two through it,
// and nothing else of the process.
func (f *serverFlags) addPusher(r *role, id node.Identity, list []service, table rpc.Table, options, own []rpc.DialOption, log *slog.Logger) ([]service, rpc.Table, error) {
	if !r.has(node.RoleLogger) || !r.has(node.RoleInventory) {
		return list, table, nil
	}
	source := list[:2:2] // logger and inventory
	who := f.describe(&role{name: "primary", services: []string{node.RoleLogger, node.RoleInventory}}, id)
	s, err := pusher.New(pusher.Config{
		PostgresURL: f.postgres, ServerID: id.ServerID, Dial: options, Table: table, LoggerAddress: ownAddress(f.grpc), LoggerOptions: own, Log: log,
		Serve: func(registrar grpc.ServiceRegistrar) {
			node.NewService(who).Register(registrar)
			for _, one := range source {
				one.Register(registrar)
			}
		},
	})
	if err != nil {
		return nil, nil, err
	}
	return append(list, s), table, nil
}
