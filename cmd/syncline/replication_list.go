package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
)

func newListCommand() *cobra.Command {
	var f clientFlags
	var states []string
	var watch bool
	request := &applierv1.ListReplicationsRequest{}
	cmd := &cobra.Command{
		Use: "list", Short: "List the replications", Args: wrongUse(cobra.NoArgs),
		Example: `  syncline replication list
  syncline replication list --state failed,retrying --prefix shop-
  syncline replication list --watch`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range states {
				state, ok := applierv1.State_value["STATE_"+strings.ReplaceAll(strings.ToUpper(strings.TrimSpace(name)), " ", "_")]
				if !ok || state == 0 {
					return usageError{fmt.Errorf("--state %q is unknown: use %s", name, strings.Join(stateNames(), ", "))}
				}
				request.States = append(request.States, applierv1.State(state))
			}
			return applierCall(cmd.Context(), &f, func(ctx context.Context, client applierv1.ApplierServiceClient) error {
				if watch {
					return watchReplications(ctx, &f, cmd.OutOrStdout(), client, request)
				}
				ctx, cancel := short(ctx)
				defer cancel()
				answer, err := listReplications(ctx, client, request)
				if err != nil {
					return err
				}
				if !f.json && len(answer.GetReplications()) == 0 && (len(states) > 0 || request.GetNamePrefix() != "") {
					fmt.Fprintln(cmd.OutOrStdout(), "none of the replications is so")
					return nil
				}
				return show(&f, cmd.OutOrStdout(), answer, renderReplications)
			})
		},
	}
	f.register(cmd, replicaGRPC)
	cmd.Flags().StringSliceVar(&states, "state", nil, "only those in one of these states: "+strings.Join(stateNames(), ", "))
	cmd.Flags().StringVar(&request.NamePrefix, "prefix", "", "only those whose name begins so")
	cmd.Flags().BoolVar(&watch, "watch", false, "go on with each that changes; with --json one answer on a line")
	for _, name := range []string{"state", "prefix", "watch"} {
		withoutVariable(cmd.Flags().Lookup(name))
	}
	return cmd
}

func stateNames() []string {
	var names []string
	for _, n := range slices.Sorted(maps.Keys(applierv1.State_name))[1:] {
		names = append(names, strings.ReplaceAll(stateName(applierv1.State(n)), " ", "_"))
	}
	return names
}

// listReplications puts all pages into one answer.
func listReplications(ctx context.Context, client applierv1.ApplierServiceClient, request *applierv1.ListReplicationsRequest) (*applierv1.ListReplicationsResponse, error) {
	all := &applierv1.ListReplicationsResponse{}
	for {
		page, err := client.ListReplications(ctx, request)
		if err != nil {
			return nil, err
		}
		all.Replications = append(all.Replications, page.GetReplications()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return all, nil
		}
	}
}
