package main

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// addInventoryClient makes `syncline inventory` without --postgres a client command: it lists the primary's tables.
func addInventoryClient(cmd *cobra.Command, postgres *string, connect *connectFlags) {
	var f clientFlags
	var tables inventoryv1.TableSelection
	cmd.Short = "List a primary's tables; with --postgres serve the inventory alone"
	cmd.Long = "Without --postgres: lists the tables of the primary at --addr, and what is not replicated and why.\nWith --postgres: runs the inventory service, which gives a primary's tables, snapshots and dumps."
	cmd.Flags().StringVar(&f.address, "addr", primaryGRPC, "gRPC address of the primary whose tables are listed")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	patternsFlag(cmd.Flags(), &tables.Include, "table", "list only these tables: schema.table, schema.*; may be repeated")
	patternsFlag(cmd.Flags(), &tables.Exclude, "exclude-table", "leave these tables out")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *postgres != "" {
			return run(cmd, args)
		}
		f.connect = *connect
		return listTables(cmd.Context(), &f, cmd, &tables)
	}
}

func listTables(ctx context.Context, f *clientFlags, cmd *cobra.Command, selection *inventoryv1.TableSelection) error {
	return f.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := short(ctx)
		defer cancel()
		answer, err := inventoryv1.NewInventoryServiceClient(conn).GetInventory(ctx, &inventoryv1.GetInventoryRequest{Tables: selection}, rpc.LargeAnswer())
		if err != nil {
			return err
		}
		if f.json {
			answer.Descriptors = nil // JSON within JSON, for machines that ask over gRPC
		}
		return show(f, cmd.OutOrStdout(), answer, renderInventory)
	})
}
