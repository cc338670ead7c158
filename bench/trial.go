package main

import (
	"context"
	"slices"
)

// trial is one row of the plan: a workload in one mode.
type trial struct {
	workload, mode string
	measures       []measure
	contenders     func(options) []contender
	run            func(ctx context.Context, e experiment) (figures, error)
}

func (t trial) name() string { return t.workload + "/" + t.mode }

// experiment is one run of a trial.
type experiment struct {
	options
	version   string
	contender contender
}

// measure is a figure that is compared, less is better.
type measure struct {
	figure string
	label  string
	target target
}

func timed(t target) []measure { return []measure{{figure: seconds, label: "time", target: t}} }

// trials are everything that can be measured, in the order in which it is.
var trials = planTrials()

func planTrials() []trial {
	all := []trial{copyTrial()}
	for _, w := range []struct {
		workload
		catchup target
	}{
		{insertLoad(), faster(2.5)},
		{updateLoad(), faster(2.5)},
		{deleteLoad(), faster(2)},
		{singleLoad(), faster(5)},
		{tpcbLoad(), faster(5)},
	} {
		all = append(all,
			replayTrial(w.workload, catchup, w.catchup),
			replayTrial(w.workload, fromWAL, nearFloor(0.8)),
			replayTrial(w.workload, live, nearFloor(0.8)),
		)
	}
	all = append(all, latencyTrial(), fanoutTrial(1, target{}), fanoutTrial(4, target{}), fanoutTrial(16, faster(6)),
		replayTrial(wideLoad(), catchup, faster(1.5)),
		replayTrial(tablesLoad(), catchup, faster(1.5)),
		replayTrial(toastLoad(), catchup, faster(1.5)),
		replayTrial(keylessLoad(), catchup, faster(1)),
	)
	for _, size := range millions {
		all = append(all, sizeTrial(size))
	}
	for _, n := range replications {
		all = append(all, jobsTrial(n))
	}
	return all
}

// natives are the variants of the native side that were asked for.
func natives(variants []variant) []contender {
	var all []contender
	for _, v := range variants {
		all = append(all, contender{side: nativeSide, variant: v})
	}
	return all
}

// withoutFloor are the contenders of a load of small transactions.
func withoutFloor(o options) []contender {
	same := func(v variant) bool { return v.memory && len(o.native) > 1 } // as the default
	return append(natives(slices.DeleteFunc(slices.Clone(o.native), same)), contender{side: synclineSide})
}
