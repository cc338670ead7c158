package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/principals"
)

func newPrincipalCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "principal",
		Short: "Make, list and take back the credentials of those who may call a server",
		Long: `A principal is someone who may call the services of a node: a person, a program, or a replica. It shows itself by a token or by a
client certificate, and its role says what it may do:

  reader      sees states and names, and no rows
  replicator  reads what it is granted (--set), as a replica does: snapshots, dumps and the stream, as a follower of its own
  operator    runs replications, and reads everything
  admin       may do everything, principals included

All processes of a node know the same principals, for they stand in its database. The first one is made with --postgres, on the
database itself, once a server has prepared it.`,
		Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPrincipalCreateCommand(), newPrincipalListCommand(), newPrincipalDeleteCommand(), newPrincipalRotateCommand())
	return cmd
}

// accessCalls is the AccessService, of a server or of this process.
type accessCalls interface {
	CreatePrincipal(ctx context.Context, in *accessv1.CreatePrincipalRequest) (*accessv1.CreatePrincipalResponse, error)
	ListPrincipals(ctx context.Context, in *accessv1.ListPrincipalsRequest) (*accessv1.ListPrincipalsResponse, error)
	DeletePrincipal(ctx context.Context, in *accessv1.DeletePrincipalRequest) (*accessv1.DeletePrincipalResponse, error)
	RotateToken(ctx context.Context, in *accessv1.RotateTokenRequest) (*accessv1.RotateTokenResponse, error)
}

// accessFlags are those of every command about principals.
type accessFlags struct {
	clientFlags
	postgres string
}

func (f *accessFlags) register(cmd *cobra.Command) {
	f.clientFlags.register(cmd, primaryGRPC)
	cmd.Flags().StringVar(&f.postgres, "postgres", "", "URL of the node's database, to work on it directly instead of asking the server at --addr")
}

// run calls the server, or works on the database directly.
func (f *accessFlags) run(ctx context.Context, do func(ctx context.Context, calls accessCalls) error) error {
	ctx, cancel := short(ctx)
	defer cancel()
	if f.postgres == "" {
		return f.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
			return do(ctx, remoteAccess{accessv1.NewAccessServiceClient(conn)})
		})
	}
	conn, err := postgres.Connect(ctx, f.postgres, "syncline principal")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return do(ctx, principals.Direct(conn))
}

// remoteAccess calls a server.
type remoteAccess struct{ client accessv1.AccessServiceClient }

func (r remoteAccess) CreatePrincipal(ctx context.Context, in *accessv1.CreatePrincipalRequest) (*accessv1.CreatePrincipalResponse, error) {
	return r.client.CreatePrincipal(ctx, in)
}

func (r remoteAccess) ListPrincipals(ctx context.Context, in *accessv1.ListPrincipalsRequest) (*accessv1.ListPrincipalsResponse, error) {
	return r.client.ListPrincipals(ctx, in)
}

func (r remoteAccess) DeletePrincipal(ctx context.Context, in *accessv1.DeletePrincipalRequest) (*accessv1.DeletePrincipalResponse, error) {
	return r.client.DeletePrincipal(ctx, in)
}

func (r remoteAccess) RotateToken(ctx context.Context, in *accessv1.RotateTokenRequest) (*accessv1.RotateTokenResponse, error) {
	return r.client.RotateToken(ctx, in)
}

// onePrincipal is the check of a command for one principal.
func onePrincipal(cmd *cobra.Command, args []string) error {
	return wrongUse(func(*cobra.Command, []string) error {
		if len(args) != 1 {
			return errors.New("one NAME of a principal is expected")
		}
		return nil
	})(cmd, args)
}

func newPrincipalListCommand() *cobra.Command {
	var f accessFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the principals", Example: "  syncline principal list --addr db1:7400 --tls-ca ca.pem --token-file ada.token", Args: wrongUse(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), func(ctx context.Context, calls accessCalls) error {
				answer, err := calls.ListPrincipals(ctx, &accessv1.ListPrincipalsRequest{})
				if err != nil {
					return err
				}
				return show(&f.clientFlags, cmd.OutOrStdout(), answer, renderPrincipals)
			})
		},
	}
	f.register(cmd)
	return cmd
}

func newPrincipalDeleteCommand() *cobra.Command {
	var f accessFlags
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Take a principal's credential back: its calls are refused and its streams end", Args: onePrincipal,
		Example: `  syncline principal delete replica1
  syncline principal delete ada --postgres postgres://syncline@localhost/shop`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), func(ctx context.Context, calls accessCalls) error {
				answer, err := calls.DeletePrincipal(ctx, &accessv1.DeletePrincipalRequest{Name: args[0]})
				if err != nil {
					return flagError(err, principalFlags)
				}
				if f.json {
					return printJSON(cmd.OutOrStdout(), answer, true)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "principal %s is deleted\n", args[0])
				return nil
			})
		},
	}
	f.register(cmd)
	return cmd
}
