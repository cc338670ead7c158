package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// addInventoryClient makes `syncline inventory` without --postgres a client command: it lists the primary's tables.
func addInventoryClient(cmd *cobra.Command, postgres *string, connect *connectFlags) {
	var f clientFlags
	var tables inventoryv1.TableSelection
	var system, details bool
	var only usedSetFlags
	cmd.Short = "List a primary's tables; with --postgres serve the inventory alone"
	cmd.Long = "Without --postgres: lists the tables of the primary at --addr, and what is not replicated and why.\nWith --postgres: runs the inventory service, which gives a primary's tables, snapshots and dumps."
	cmd.Example = `  syncline inventory --addr db1:7400
  syncline inventory --table 'sales.*' --json
` + cmd.Example
	cmd.Flags().StringVar(&f.address, "addr", primaryGRPC, "gRPC address of the primary whose tables are listed")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	patternsFlag(cmd.Flags(), &tables.Include, "table", "list only these tables: schema.table, schema.*; may be repeated")
	patternsFlag(cmd.Flags(), &tables.Exclude, "exclude-table", "leave these tables out")
	cmd.Flags().BoolVar(&system, "system", false, "list PostgreSQL's own tables and Syncline's too")
	cmd.Flags().BoolVar(&details, "details", false, "show columns, constraints and indexes of each table, sequences and types too")
	cmd.Example = `  syncline inventory --addr db1:7400 --plaintext
  syncline inventory --table public.orders --details`
	only.register(cmd.Flags())
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *postgres != "" {
			return run(cmd, args)
		}
		f.connect = *connect
		return listTables(cmd.Context(), &f, cmd, &inventoryv1.GetInventoryRequest{Tables: &tables, IncludeSystem: system, Set: only.set, Parameters: only.parameters}, details)
	}
}

func listTables(ctx context.Context, f *clientFlags, cmd *cobra.Command, request *inventoryv1.GetInventoryRequest, details bool) error {
	return f.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := short(ctx)
		defer cancel()
		answer, err := inventoryv1.NewInventoryServiceClient(conn).GetInventory(ctx, request, rpc.LargeAnswer())
		if err != nil {
			return err
		}
		if f.json {
			answer.Descriptors = nil // JSON within JSON, for machines that ask over gRPC
		}
		return show(f, cmd.OutOrStdout(), answer, func(out io.Writer, answer *inventoryv1.GetInventoryResponse) {
			renderInventory(out, answer)
			if details {
				renderDetails(out, answer)
			}
		})
	})
}
