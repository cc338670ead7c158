package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/seed0419d559/syncline/internal/rpc"
)

// callTimeout bounds a client's ordinary call.
const callTimeout = 30 * time.Second

// clientFlags are those of every client command.
type clientFlags struct {
	address string
	json    bool
	connect connectFlags
}

func (f *clientFlags) register(cmd *cobra.Command, address string) {
	cmd.Flags().StringVar(&f.address, "addr", address, "gRPC address of the server")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	f.connect.register(cmd.Flags())
}

// call dials the server and runs a call on the connection.
func (f *clientFlags) call(ctx context.Context, run func(ctx context.Context, conn *grpc.ClientConn) error) error {
	options, err := f.connect.options()
	if err != nil {
		return err
	}
	conn, err := rpc.Dial(f.address, options...)
	if err != nil {
		return usageError{err}
	}
	defer conn.Close()
	if err := run(ctx, conn); err != nil {
		return f.explain(err)
	}
	return nil
}

// explain adds to an error of the transport which server was asked, and to one of a server that has not what was asked for
// where that is found.
func (f *clientFlags) explain(err error) error {
	switch problem := rpc.HandshakeProblem(err, ""); {
	case problem != "":
		return fmt.Errorf("no connection to %s: %s (%w)", f.address, problem, err)
	case rpc.Code(err) == codes.Unimplemented:
		return fmt.Errorf("the server at %s does not serve this (`syncline server show --addr %s` tells what it serves); choose another with --addr: a primary's default is %s, a replica's %s: %w",
			f.address, f.address, primaryGRPC, replicaGRPC, err)
	case rpc.Reason(err) == "" && rpc.IsTransient(err):
		return fmt.Errorf("no answer from %s; is a Syncline server running there, and is that its gRPC address (--addr)?%s %w", f.address, rpc.EncryptionHint(err, ""), err)
	case rpc.Reason(err) == "" && rpc.Code(err) == codes.DeadlineExceeded:
		return fmt.Errorf("no answer from %s in time: %w", f.address, err)
	}
	return err
}

// short bounds a call that should answer at once.
func short(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

// printValue prints what is no message, on several lines.
func printValue(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("print answer: %w", err)
	}
	return nil
}

// show prints an answer: as JSON where it is asked for, else by the render function.
func show[M proto.Message](f *clientFlags, out io.Writer, answer M, render func(io.Writer, M)) error {
	if !f.json {
		render(out, answer)
		return nil
	}
	return printJSON(out, answer, true)
}

// printJSON prints one message, on several lines or on one.
func printJSON(out io.Writer, message proto.Message, lines bool) error {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(message)
	if err != nil {
		return fmt.Errorf("print answer: %w", err)
	}
	// protojson varies its spaces from build to build so that nobody compares them; here people do.
	var tidy bytes.Buffer
	if lines {
		err = json.Indent(&tidy, text, "", "  ")
	} else {
		err = json.Compact(&tidy, text)
	}
	if err != nil {
		return fmt.Errorf("print answer: %w", err)
	}
	_, err = fmt.Fprintln(out, tidy.String())
	return err
}
