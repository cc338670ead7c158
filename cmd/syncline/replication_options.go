package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/services/applier"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// specFlags are the flags that set what the API calls otherwise.
var specFlags = map[string]string{ //nolint:gosec // they are names
	"spec.token": "--source-token-file", "spec.proxy": "--source-proxy", "spec.tls": "--source-tls", "spec.tls.ca": "--source-tls-ca", "spec.tls.server_name": "--source-tls-server-name",
	"spec.tls.certificate": "--source-tls-cert", "spec.tls.key": "--source-tls-key",
	"name": "NAME", "spec.set": "--set", "spec.parameters": "--param", "spec.source": "--source", "spec.inventory": "--inventory", "spec.include_tables": "--table", "spec.exclude_tables": "--exclude-table",
	"spec.replace": "--replace", "spec.copy_workers": "--copy-workers", "spec.compression": "--compress", "spec.description": "--description",
	"spec.retry_base": "--retry-base", "spec.retry_cap": "--retry-cap", "spec.retry_limit": "--retry-limit", "spec.source_timeout": "--source-timeout",
	"spec.group_bytes": "--group-bytes", "spec.group_time": "--group-time", "spec.auto_resync": "--auto-resync", "spec.auto_resync_limit": "--auto-resync-limit", "spec.from_restore": "--from-restore", "spec.initial": "--initial", "spec.mode": "--mode", "spec.rename": "--rename", "spec.shared": "--shared", "spec.healthy_after": "--healthy-after",
	"spec.on_error": "--on-error", "spec.quarantine_limit": "--quarantine-limit", "spec.quarantine_bytes": "--quarantine-bytes",
	"ids": "ID", "table": "--table", "edits": "--set", "id": "--show", "page_size": "--limit",
	"spec.schedule": "--schedule", "spec.schedule.cron": "--cron", "spec.schedule.interval": "--schedule", "spec.schedule.time_zone": "--timezone", "spec.schedule.window": "--window", "spec.schedule.days": "--days",
	"spec.schedule.not_before": "--not-before", "spec.schedule.not_after": "--not-after", "spec.schedule.max_runs": "--max-runs", "spec.schedule.jitter": "--jitter",
	"from.log_id": "--from", "from.lsn": "--from", "force": "--force",
}

// replicationFlags are the flags of a replication's spec.
type replicationFlags struct {
	spec                                                applierv1.ReplicationSpec
	compression, autoResync, mode, onError              string
	retryBase, retryCap, sourceTimeout, groups, healthy time.Duration
	connection                                          sourceFlags
	schedule                                            scheduleFlags
	modeFlag                                            *pflag.Flag
}

func (f *replicationFlags) register(flags *pflag.FlagSet) {
	s, engine := &f.spec, apply.DefaultOptions()
	flags.StringVar(&s.Source, "source", "", "HOST:PORT of any service of the primary (needed)")
	flags.StringVar(&s.Inventory, "inventory", "", "HOST:PORT of the primary's inventory; asked of the source when empty")
	patternsFlag(flags, &s.IncludeTables, "table", "take only these tables: schema.table, schema.*; may be repeated")
	patternsFlag(flags, &s.ExcludeTables, "exclude-table", "leave these tables out")
	flags.BoolVar(&s.Replace, "replace", false, "remove the rows that the replica's tables hold before the copy")
	flags.Int32Var(&s.CopyWorkers, "copy-workers", 0, fmt.Sprintf("sessions that copy and build indexes at the same time; 0 for the default of %d", applier.DefaultCopyWorkers))
	f.connection.register(flags)
	flags.StringVar(&f.compression, "compress", "none", "how changes and rows are compressed on their way from the source: none, or zstd for a slow network")
	flags.StringVar(&s.Description, "description", "", "what the replication is for")
	flags.DurationVar(&f.retryBase, "retry-base", 0, fmt.Sprintf("pause before the first retry after a fault that passes; 0 for the default of %s", applier.DefaultRetryBase))
	flags.DurationVar(&f.retryCap, "retry-cap", 0, "longest pause between two attempts; 0 for the replica's --retry-max")
	flags.Int32Var(&s.RetryLimit, "retry-limit", 0, "how many attempts in a row may fail before the replication stops; 0 for no limit")
	flags.DurationVar(&f.sourceTimeout, "source-timeout", 0, fmt.Sprintf("how long the source may be silent before it counts as lost; 0 for the default of %s", applier.DefaultSourceTimeout))
	flags.Int64Var(&s.GroupBytes, "group-bytes", 0, fmt.Sprintf("bytes of changes that share one transaction on the replica; 0 for the default of %d", engine.GroupBytes))
	flags.DurationVar(&f.groups, "group-time", 0, fmt.Sprintf("how long changes may be gathered into one transaction on the replica; 0 for the default of %s", engine.GroupTime))
	flags.StringVar(&f.mode, "mode", "continuous", "continuous, or once: apply what is committed on the source now, and end; starting it runs it again. With a schedule it is once")
	f.modeFlag = flags.Lookup("mode")
	f.schedule.register(flags)
	flags.DurationVar(&f.healthy, "healthy-after", 0, fmt.Sprintf("how long it has to work without a fault before those in a row are forgotten; 0 for the default of %s", applier.DefaultHealthyAfter))
	flags.StringVar(&f.autoResync, "auto-resync", "off", "what is done when the source's change log does not reach back to the replica any more: off (fail, and wait for a decision), copy (copy all tables anew), or incremental (compare them, and ship what differs)")
	flags.StringVar(&f.onError, "on-error", "stop", "what is done with a change that the replica refuses for what is in it: stop (fail, and wait for a decision), or quarantine (set it aside, let later changes of the same row wait, and apply the rest)")
	flags.Int64Var(&s.QuarantineLimit, "quarantine-limit", 0, fmt.Sprintf("how many changes the quarantine takes before the replication stops; 0 for the default of %d", apply.DefaultQuarantineRows))
	flags.Int64Var(&s.QuarantineBytes, "quarantine-bytes", 0, fmt.Sprintf("how many bytes of changes the quarantine takes; 0 for the default of %d", apply.DefaultQuarantineBytes))
	flags.Int32Var(&s.AutoResyncLimit, "auto-resync-limit", 0, fmt.Sprintf("how many times in a row --auto-resync may act; 0 for the default of %d", applier.DefaultAutoResyncLimit))
}

// registerNames are the flags that are decided with the first run: what tables are called here, and whose rows they hold.
func (f *replicationFlags) registerNames(flags *pflag.FlagSet) {
	flags.Var(renameList{&f.spec.Rename}, "rename", "what tables of the source are called here: public.*=acme.*, public.orders=acme.orders_in; the first rule that matches counts; may be repeated")
	flags.BoolVar(&f.spec.Shared, "shared", false, "tables of which the set selects rows may hold rows of other replications, which are left alone")
}

// finish sets what the API has in another form than the flags.
func (f *replicationFlags) finish() error {
	if err := f.connection.set(&f.spec); err != nil {
		return err
	}
	switch f.compression {
	case "none":
		f.spec.Compression = applierv1.Compression_COMPRESSION_UNSPECIFIED
	case "zstd":
		f.spec.Compression = applierv1.Compression_COMPRESSION_ZSTD
	default:
		return usageError{fmt.Errorf("--compress %q is unknown: use none or zstd", f.compression)}
	}
	if err := f.schedule.set(&f.spec); err != nil {
		return err
	}
	if f.spec.GetSchedule() != nil && !f.modeFlag.Changed {
		f.mode = "once"
	}
	switch f.mode {
	case "continuous":
		f.spec.Mode = applierv1.Mode_MODE_UNSPECIFIED
	case "once":
		f.spec.Mode = applierv1.Mode_MODE_ONCE
	default:
		return usageError{fmt.Errorf("--mode %q is unknown: use continuous or once", f.mode)}
	}
	switch f.autoResync {
	case "off":
		f.spec.AutoResync = applierv1.AutoResync_AUTO_RESYNC_UNSPECIFIED
	case "copy":
		f.spec.AutoResync = applierv1.AutoResync_AUTO_RESYNC_COPY
	case "incremental":
		f.spec.AutoResync = applierv1.AutoResync_AUTO_RESYNC_INCREMENTAL
	default:
		return usageError{fmt.Errorf("--auto-resync %q is unknown: use off, copy or incremental", f.autoResync)}
	}
	switch f.onError {
	case "stop":
		f.spec.OnError = applierv1.OnError_ON_ERROR_UNSPECIFIED
	case "quarantine":
		f.spec.OnError = applierv1.OnError_ON_ERROR_QUARANTINE
	default:
		return usageError{fmt.Errorf("--on-error %q is unknown: use stop or quarantine", f.onError)}
	}
	for _, d := range []struct {
		from time.Duration
		to   **durationpb.Duration
	}{{f.retryBase, &f.spec.RetryBase}, {f.retryCap, &f.spec.RetryCap}, {f.sourceTimeout, &f.spec.SourceTimeout}, {f.groups, &f.spec.GroupTime}, {f.healthy, &f.spec.HealthyAfter}} {
		if d.from != 0 {
			*d.to = durationpb.New(d.from)
		}
	}
	return nil
}
