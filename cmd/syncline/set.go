package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

func newSetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Define which tables and rows of a primary replicas may take under a name",
		Args:  wrongUse(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSetCreateCommand(), newSetUpdateCommand(), newSetListCommand(), newSetShowCommand(), newSetDeleteCommand())
	return cmd
}

// loggerCall is a call to a primary's logger.
func loggerCall(ctx context.Context, f *clientFlags, run func(ctx context.Context, client loggerv1.LoggerServiceClient) error) error {
	return f.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := short(ctx)
		defer cancel()
		return run(ctx, loggerv1.NewLoggerServiceClient(conn))
	})
}

// oneSet is the check of a command for one set.
func oneSet(cmd *cobra.Command, args []string) error {
	return wrongUse(func(*cobra.Command, []string) error {
		if len(args) != 1 {
			return fmt.Errorf("one NAME of a set is expected, not %d", len(args))
		}
		return nil
	})(cmd, args)
}

// setFlags are those that say what a set selects.
type setFlags struct {
	tables, exclude   []string
	description, file string
}

func (f *setFlags) register(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.tables, "table", nil, "tables of the set: schema.table, schema.*; with rows as 'schema.table={\"column\": …}' or 'schema.table=column == params.name && …'; may be repeated, and the first that matches a table counts")
	patternsFlag(flags, &f.exclude, "exclude-table", "leave these tables out")
	flags.StringVar(&f.description, "description", "", "a text for people")
	flags.StringVar(&f.file, "file", "", "read all of it from a file in JSON instead (a SetSpec), also columns, operations and keys; - for standard input")
}

// spec is what the flags say.
func (f *setFlags) spec(cmd *cobra.Command) (*loggerv1.SetSpec, error) {
	spec := &loggerv1.SetSpec{ExcludeTables: f.exclude, Description: f.description}
	if f.file != "" {
		if len(f.tables)+len(f.exclude) > 0 || f.description != "" {
			return nil, usageError{errors.New("--file says all of it: --table, --exclude-table and --description do not go with it")}
		}
		var text []byte
		var err error
		if f.file == "-" {
			text, err = io.ReadAll(cmd.InOrStdin())
		} else {
			text, err = os.ReadFile(f.file)
		}
		if err != nil {
			return nil, usageError{fmt.Errorf("--file: %w", err)}
		}
		if err := protojson.Unmarshal(text, spec); err != nil {
			return nil, usageError{fmt.Errorf("--file %s: %w", f.file, err)}
		}
		return spec, nil
	}
	if len(f.tables)+len(f.exclude) == 0 {
		return nil, usageError{errors.New("say what the set selects, with --table, --exclude-table or --file")}
	}
	for _, text := range f.tables {
		table := &loggerv1.SetTable{}
		var rows string
		switch table.Pattern, rows = cutPattern(text); {
		case strings.HasPrefix(rows, "{") && !json.Valid([]byte(rows)):
			return nil, usageError{fmt.Errorf("--table %s: what follows the = is no JSON: %s", table.GetPattern(), rows)}
		case strings.HasPrefix(rows, "{"):
			table.Rows = rows
		default:
			table.Expression = rows
		}
		spec.Tables = append(spec.Tables, table)
	}
	return spec, nil
}

// cutPattern cuts what is said of rows from a pattern, in whose quoted names there may be an = too.
func cutPattern(text string) (pattern, rows string) {
	quoted := false
	for i, r := range text {
		switch {
		case r == '"':
			quoted = !quoted
		case r == '=' && !quoted:
			return text[:i], strings.TrimSpace(text[i+1:])
		}
	}
	return text, ""
}

func newSetCreateCommand() *cobra.Command {
	var f clientFlags
	var what setFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a replication set",
		Long: `Makes a set of tables, and of rows where a selector says which (docs/selectors.md). It is checked against the tables that there are:
the columns that decide about a row have to belong to the table's replica identity. A value written {"$param": "org"} is given by
whoever uses the set, with --param org=acme.`,
		Example: `  syncline set create shop --table 'shop.*'
  syncline set create large --table 'public.orders=amount >= 1000 && status in ["open", "paid"]'
  syncline set create by-org --table 'public.orders={"org": {"$param": "org"}}' --table public.countries
  syncline replication create acme --source db1:7400 --set by-org --param org=acme`,
		Args: oneSet,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := what.spec(cmd)
			if err != nil {
				return err
			}
			return loggerCall(cmd.Context(), &f, func(ctx context.Context, client loggerv1.LoggerServiceClient) error {
				answer, err := client.CreateSet(ctx, &loggerv1.CreateSetRequest{Name: args[0], Spec: spec})
				if err != nil {
					return what.inFlags(err)
				}
				return show(&f, cmd.OutOrStdout(), answer.GetSet(), func(out io.Writer, s *loggerv1.Set) {
					fmt.Fprintf(out, "set %s is made%s\nnext: syncline replication create NAME --source %s --set %s%s\n", s.GetName(), needs(s), f.address, s.GetName(), params(s))
				})
			})
		},
	}
	f.register(cmd, primaryGRPC)
	what.register(cmd.Flags())
	return cmd
}

func newSetUpdateCommand() *cobra.Command {
	var f clientFlags
	var what setFlags
	request := &loggerv1.UpdateSetRequest{}
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Change what a replication set selects",
		Long: `Says anew, as a whole, what a set selects. Replicas that use it notice at once: of tables of which other rows or more columns are selected
now they fetch what differs, they remove the rows of those that have left the set, and leave the others as they are.`,
		Example: `  syncline set update shop --table 'shop.*' --exclude-table shop.sessions`,
		Args:    oneSet,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			request.Name = args[0]
			if request.Spec, err = what.spec(cmd); err != nil {
				return err
			}
			return loggerCall(cmd.Context(), &f, func(ctx context.Context, client loggerv1.LoggerServiceClient) error {
				answer, err := client.UpdateSet(ctx, request)
				if err != nil {
					return what.inFlags(err)
				}
				return show(&f, cmd.OutOrStdout(), answer.GetSet(), func(out io.Writer, s *loggerv1.Set) {
					fmt.Fprintf(out, "set %s is changed%s\n", s.GetName(), needs(s))
				})
			})
		},
	}
	f.register(cmd, primaryGRPC)
	what.register(cmd.Flags())
	cmd.Flags().Int64Var(&request.Version, "if-version", 0, "change only this version of it, as `set show` prints it; 0 for whichever there is")
	return cmd
}

func newSetListCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the replication sets of a primary", Args: wrongUse(cobra.NoArgs),
		Example: "  syncline set list\n  syncline set list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return loggerCall(cmd.Context(), &f, func(ctx context.Context, client loggerv1.LoggerServiceClient) error {
				answer, err := client.ListSets(ctx, &loggerv1.ListSetsRequest{})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer, renderSets)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	return cmd
}

func newSetShowCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show what a replication set selects", Args: oneSet,
		Example: "  syncline set show by-org",
		RunE: func(cmd *cobra.Command, args []string) error {
			return loggerCall(cmd.Context(), &f, func(ctx context.Context, client loggerv1.LoggerServiceClient) error {
				answer, err := client.GetSet(ctx, &loggerv1.GetSetRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer.GetSet(), renderSet)
			})
		},
	}
	f.register(cmd, primaryGRPC)
	return cmd
}

func newSetDeleteCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Remove a replication set", Args: oneSet,
		Long:    "Removes a set. Replicas that use it stop with SET_UNKNOWN; their rows stay as they are.",
		Example: "  syncline set delete by-org",
		RunE: func(cmd *cobra.Command, args []string) error {
			return loggerCall(cmd.Context(), &f, func(ctx context.Context, client loggerv1.LoggerServiceClient) error {
				answer, err := client.DeleteSet(ctx, &loggerv1.DeleteSetRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return show(&f, cmd.OutOrStdout(), answer, func(out io.Writer, _ *loggerv1.DeleteSetResponse) {
					fmt.Fprintf(out, "set %s is deleted\n", args[0])
				})
			})
		},
	}
	f.register(cmd, primaryGRPC)
	return cmd
}

// needs tells what a user of the set has to give, and that it selects everything where that was not said in so many words.
func needs(s *loggerv1.Set) (text string) {
	switch {
	case len(s.GetSpec().GetTables()) > 0:
	case len(s.GetSpec().GetExcludeTables()) == 0:
		text = "; it selects every table"
	default:
		text = "; it selects every table but those that it leaves out"
	}
	if len(s.GetParameters()) > 0 {
		text += "; it needs " + strings.Join(s.GetParameters(), ", ")
	}
	return text
}

var setTableField = regexp.MustCompile(`^spec\.tables\[(\d+)\]\.\w+$`)

// inFlags makes an error about a part of the set one about the flag that says it.
func (f *setFlags) inFlags(err error) error {
	fields := map[string]string{"name": "NAME", "spec.exclude_tables": "--exclude-table", "spec.description": "--description"}
	if f.file != "" {
		return flagError(err, map[string]string{"name": "NAME"})
	}
	field, _, _ := strings.Cut(rpc.Message(err), ": ")
	if found := setTableField.FindStringSubmatch(field); found != nil {
		if i, _ := strconv.Atoi(found[1]); i < len(f.tables) {
			pattern, _ := cutPattern(f.tables[i])
			fields[field] = "--table " + pattern
		}
	}
	return flagError(err, fields)
}

func params(s *loggerv1.Set) string {
	var text strings.Builder
	for _, name := range s.GetParameters() {
		text.WriteString(" --param " + name + "=VALUE")
	}
	return text.String()
}

func renderSets(out io.Writer, answer *loggerv1.ListSetsResponse) {
	if len(answer.GetSets()) == 0 {
		fmt.Fprintln(out, "no sets; make one with: syncline set create NAME --table PATTERN")
		return
	}
	rows := [][]string{{"NAME", "VERSION", "TABLES", "PARAMETERS", "DESCRIPTION"}}
	for _, s := range answer.GetSets() {
		rows = append(rows, []string{s.GetName(), fmt.Sprint(s.GetVersion()), patternsOf(s.GetSpec()), strings.Join(s.GetParameters(), ", "), s.GetSpec().GetDescription()})
	}
	table(out, rows)
}

func patternsOf(spec *loggerv1.SetSpec) string {
	if len(spec.GetTables()) == 0 {
		return "all"
	}
	var list []string
	for _, t := range spec.GetTables() {
		list = append(list, t.GetPattern())
	}
	return strings.Join(list, ", ")
}

func renderSet(out io.Writer, s *loggerv1.Set) {
	lines := [][]string{{"set", s.GetName()}, {"version", fmt.Sprint(s.GetVersion())}}
	if text := s.GetSpec().GetDescription(); text != "" {
		lines = append(lines, []string{"description", text})
	}
	if len(s.GetParameters()) > 0 {
		lines = append(lines, []string{"parameters", strings.Join(s.GetParameters(), ", ")})
	}
	if len(s.GetSpec().GetTables()) == 0 {
		lines = append(lines, []string{"tables", "all"})
	}
	for _, t := range s.GetSpec().GetTables() {
		lines = append(lines, []string{"table", t.GetPattern(), selectionOf(t)})
	}
	for _, pattern := range s.GetSpec().GetExcludeTables() {
		lines = append(lines, []string{"without", pattern})
	}
	table(out, lines)
}

// selectionOf says what is selected of a table.
func selectionOf(t *loggerv1.SetTable) string {
	var parts []string
	switch {
	case t.GetRows() != "":
		parts = append(parts, "rows "+t.GetRows())
	case t.GetExpression() != "":
		parts = append(parts, "rows "+t.GetExpression())
	case len(t.GetKeys()) == 0:
		parts = append(parts, "all rows")
	}
	if n := len(t.GetKeys()); n > 0 {
		parts = append(parts, fmt.Sprintf("%d keys (%s)", n, strings.Join(t.GetKeyColumns(), ", ")))
	}
	if len(t.GetColumns()) > 0 {
		parts = append(parts, "columns "+strings.Join(t.GetColumns(), ", "))
	}
	if len(t.GetLeaveOutColumns()) > 0 {
		parts = append(parts, "without columns "+strings.Join(t.GetLeaveOutColumns(), ", "))
	}
	if len(t.GetOperations()) > 0 {
		var names []string
		for _, o := range t.GetOperations() {
			names = append(names, strings.ToLower(strings.TrimPrefix(o.String(), "SET_OPERATION_")))
		}
		parts = append(parts, "only "+strings.Join(names, ", "))
	}
	return strings.Join(parts, "; ")
}

// usedSetFlags are those of commands that read by a set.
type usedSetFlags struct {
	set        string
	parameters map[string]string
}

func (f *usedSetFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.set, "set", "", "take only what this replication set of the primary selects")
	flags.StringToStringVar(&f.parameters, "param", nil, "value of a parameter of the set, as NAME=VALUE; may be repeated")
}
