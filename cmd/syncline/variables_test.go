package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestVariables(t *testing.T) {
	var text string
	var number int
	var tables []string
	flags := pflag.NewFlagSet("x", pflag.ContinueOnError)
	flags.StringVar(&text, "log-format", "text", "")
	flags.IntVar(&number, "max-bytes", 1, "")
	patternsFlag(flags, &tables, "table", "")
	flags.Bool("version", false, "")
	environment := []string{"SYNCLINE_LOG_FORMAT=json", "SYNCLINE_MAX_BYTES=7", `SYNCLINE_TABLE=a.b,"c,d".e`, "SYNCLINE_VERSION=1.2", "PATH=/bin"}
	if err := flags.Parse([]string{"--max-bytes", "9"}); err != nil {
		t.Fatal(err)
	}
	if err := bindVariables(flags, environment); err != nil {
		t.Fatal(err)
	}
	if text != "json" || number != 9 || !slices.Equal(tables, []string{"a.b", `"c,d".e`}) {
		t.Errorf("got %q, %d, %q", text, number, tables)
	}
	flags = pflag.NewFlagSet("x", pflag.ContinueOnError)
	flags.IntVar(&number, "max-bytes", 1, "")
	if err := bindVariables(flags, []string{"SYNCLINE_MAX_BYTES=many"}); err == nil || !strings.Contains(err.Error(), "SYNCLINE_MAX_BYTES") {
		t.Errorf("got %v", err)
	}
}

// TestEveryFlagHasAVariable sets each flag of each command to a value that none takes.
func TestEveryFlagHasAVariable(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			if !hasVariable(flag) || cmd.Name() == "completion" || cmd.Parent() != nil && cmd.Parent().Name() == "completion" {
				return
			}
			if unknown := unknownVariables(cmd.Root(), []string{variableName(flag.Name) + "=1"}); len(unknown) != 0 {
				t.Errorf("%s --%s: %v is not known", cmd.CommandPath(), flag.Name, unknown)
			}
		})
		for _, child := range cmd.Commands() {
			visit(child)
		}
	}
	visit(newRoot(nil))
}

func TestUnknownVariables(t *testing.T) {
	got := unknownVariables(newRoot(nil), []string{
		"SYNCLINE_POSTGRE=x", "SYNCLINE_DATA=y", "SYNCLINE_PG_BIN=/x", "SYNCLINE_TEST_PG=15", "SYNCLINE_AAA=", "OTHER=1",
		"SYNCLINE_SERVICE_HOST=10.0.0.1", "SYNCLINE_PORT=tcp://10.0.0.1:7400", "SYNCLINE_PORT_7400_TCP_ADDR=10.0.0.1", "SYNCLINE_PRIMARY_SERVICE_PORT_GRPC=7400",
	})
	if want := []string{"SYNCLINE_AAA", "SYNCLINE_POSTGRE"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	_, errOut, code := command(t, []string{"SYNCLINE_POSTGRE=x"}, "server", "reset-id")
	if code != exitWrongUse || !strings.Contains(errOut, "variable SYNCLINE_POSTGRE is of no flag") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("failed to connect:\n\t127.0.0.1:1: refused\n\t::1: refused\n"); got != "failed to connect: 127.0.0.1:1: refused ::1: refused" {
		t.Errorf("got %q", got)
	}
}
