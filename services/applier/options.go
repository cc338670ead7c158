package applier

import (
	"fmt"
	"runtime"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/services/applier/apply"
)

// What holds where a replication's spec says nothing. How an engine groups stands in apply.DefaultOptions, and the longest pause
// between two attempts is the applier's own (Config.RetryCap).
const (
	DefaultCopyWorkers     = 4
	DefaultRetryBase       = 250 * time.Millisecond
	DefaultRetryCap        = 30 * time.Second
	DefaultSourceTimeout   = 20 * time.Second
	DefaultAutoResyncLimit = 3
	// DefaultHealthyAfter is how long a replication has to run without a fault before what went wrong in a row is forgotten.
	DefaultHealthyAfter = 2 * time.Minute
	// DefaultMaxRunning is how many replications run at a time: with their copies they fit into the 100 connections that PostgreSQL allows.
	DefaultMaxRunning = 32
	// DefaultMaxTurn is how long one that is behind runs while others wait.
	DefaultMaxTurn = 10 * time.Second
)

const (
	maxCopyWorkers      = 64
	maxRetryLimit       = 1_000_000
	maxAutoResyncLimit  = 100
	maxDescriptionRunes = 1000
	minGroupBytes       = 64 << 10
	maxGroupBytes       = 1 << 30
	minRetryBase        = 10 * time.Millisecond
	maxRetryBase        = time.Hour
	maxRetryCap         = 24 * time.Hour
	minSourceTimeout    = 3 * time.Second // a few heartbeats
	maxSourceTimeout    = time.Hour
	minGroupTime        = time.Millisecond
	maxGroupTime        = time.Minute
	minHealthyAfter     = time.Second
	maxHealthyAfter     = 24 * time.Hour
)

// options are a replication's, with the defaults filled in.
type options struct {
	copyWorkers         int
	copyJoining         int // sessions of copyWorkers up to which they join in a table that another one copies
	retryBase, retryCap time.Duration
	retryLimit          int // 0 is none
	sourceTimeout       time.Duration
	apply               apply.Options
	quarantine          apply.Quarantine
	resync              pending // what is done at a gap
	autoResyncLimit     int
	healthyAfter        time.Duration
}

// options fills in what a spec does not say.
func (c *Config) options(spec *applierv1.ReplicationSpec) options {
	o := options{
		copyWorkers: DefaultCopyWorkers, copyJoining: runtime.GOMAXPROCS(0), retryBase: c.RetryBase, retryCap: c.RetryCap, retryLimit: int(spec.GetRetryLimit()),
		sourceTimeout: DefaultSourceTimeout, apply: c.Apply, resync: resyncOf(spec.GetAutoResync()),
		autoResyncLimit: DefaultAutoResyncLimit, healthyAfter: c.HealthyAfter, quarantine: quarantineOf(spec),
	}
	if n := spec.GetCopyWorkers(); n > 0 {
		o.copyWorkers = int(n)
	}
	if o.copyWorkers > DefaultCopyWorkers { // whoever asks for more wants them also where the processors are the servers'
		o.copyJoining = o.copyWorkers
	}
	if n := spec.GetAutoResyncLimit(); n > 0 {
		o.autoResyncLimit = int(n)
	}
	if n := spec.GetGroupBytes(); n > 0 {
		o.apply.GroupBytes = int(n)
		o.apply.SliceBytes = min(o.apply.SliceBytes, int(n))
	}
	for _, d := range []struct {
		from *durationpb.Duration
		to   *time.Duration
	}{{spec.GetRetryBase(), &o.retryBase}, {spec.GetRetryCap(), &o.retryCap}, {spec.GetSourceTimeout(), &o.sourceTimeout}, {spec.GetGroupTime(), &o.apply.GroupTime}, {spec.GetHealthyAfter(), &o.healthyAfter}} {
		if d.from != nil {
			*d.to = d.from.AsDuration()
		}
	}
	if o.retryBase > o.retryCap && spec.GetRetryBase() == nil {
		o.retryBase = o.retryCap
	}
	return o
}

// problems collects what is wrong with a request, field by field.
type problems struct{ err *rpc.Error }

func (p *problems) add(field, format string, args ...any) {
	if p.err == nil {
		p.err = rpc.Invalid(field, format, args...)
		return
	}
	p.err = p.err.Field(field, format, args...)
}

// include adds what another check found.
func (p *problems) include(err error) {
	for _, violation := range rpc.Fields(err) {
		p.add(violation.GetField(), "%s", violation.GetDescription())
	}
}

func (p *problems) result() error {
	if p.err == nil {
		return nil
	}
	return p.err
}

func (p *problems) count(field string, n, least, most int64) {
	if n != 0 && n < least || n > most {
		p.add(field, "%d is not from %d to %d; 0 is the default", n, least, most)
	}
}

func (p *problems) duration(field string, d *durationpb.Duration, least, most time.Duration) {
	switch {
	case d == nil:
	case d.CheckValid() != nil:
		p.add(field, "is not a duration")
	case d.AsDuration() < least || d.AsDuration() > most:
		p.add(field, "%s is not from %s to %s", d.AsDuration(), least, most)
	}
}

// checkOptions finds what is wrong with the options of a spec.
func (c *Config) checkOptions(p *problems, spec *applierv1.ReplicationSpec) {
	p.count("spec.copy_workers", int64(spec.GetCopyWorkers()), 1, maxCopyWorkers)
	p.count("spec.retry_limit", int64(spec.GetRetryLimit()), 1, maxRetryLimit)
	p.count("spec.group_bytes", spec.GetGroupBytes(), minGroupBytes, maxGroupBytes)
	p.count("spec.auto_resync_limit", int64(spec.GetAutoResyncLimit()), 1, maxAutoResyncLimit)
	checkQuarantine(p, spec)
	p.duration("spec.retry_base", spec.GetRetryBase(), minRetryBase, maxRetryBase)
	p.duration("spec.retry_cap", spec.GetRetryCap(), minRetryBase, maxRetryCap)
	p.duration("spec.source_timeout", spec.GetSourceTimeout(), minSourceTimeout, maxSourceTimeout)
	p.duration("spec.healthy_after", spec.GetHealthyAfter(), minHealthyAfter, maxHealthyAfter)
	if _, known := applierv1.Mode_name[int32(spec.GetMode())]; !known {
		p.add("spec.mode", "%d is no mode; use continuous or once", spec.GetMode())
	}
	checkSchedule(p, spec)
	p.duration("spec.group_time", spec.GetGroupTime(), minGroupTime, maxGroupTime)
	if text := spec.GetDescription(); utf8.RuneCountInString(text) > maxDescriptionRunes {
		p.add("spec.description", "has more than %d characters", maxDescriptionRunes)
	} else if strange := unprintable(text); strange != "" {
		p.add("spec.description", "holds %s; it is one line of text", strange)
	}
	if o := c.options(spec); p.err == nil && o.retryBase > o.retryCap {
		p.add("spec.retry_cap", "%s is less than retry_base, %s", o.retryCap, o.retryBase)
	}
}

// unprintable names the first character that does not belong into a line of text.
func unprintable(text string) string {
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("the character %U", r)
		}
	}
	return ""
}

// resyncOf is what auto_resync has done at a gap; nothing when it is off.
func resyncOf(auto applierv1.AutoResync) pending {
	switch auto {
	case applierv1.AutoResync_AUTO_RESYNC_COPY:
		return pendingResync
	case applierv1.AutoResync_AUTO_RESYNC_INCREMENTAL:
		return pendingMend
	case applierv1.AutoResync_AUTO_RESYNC_OFF, applierv1.AutoResync_AUTO_RESYNC_UNSPECIFIED:
	}
	return pendingNothing
}
