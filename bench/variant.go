package main

import (
	"fmt"
	"maps"
	neturl "net/url"
	"slices"
	"strings"
)

// variant is one way to use the native replication. The better one counts against Syncline.
type variant struct {
	name    string
	options map[string]string // of CREATE SUBSCRIPTION; not set means PostgreSQL's default
	// parallel adds streaming = parallel where the server knows it (16 and newer) in place of streaming = on.
	parallel bool
	// memory lets the walsender hold as much of a transaction as that of Syncline may.
	memory bool

	// Of the first copy alone.
	workers int  // max_sync_workers_per_subscription, 0 for the default
	late    bool // indexes are created by hand after the copy
}

var (
	plainVariant = variant{name: "default"}
	// memoryVariant differs where a transaction is larger than what a walsender holds by default.
	memoryVariant = variant{name: "memory", memory: true}
	tunedVariant  = variant{name: "tuned", options: map[string]string{"binary": "on", "streaming": "on"}, parallel: true}
)

// allVariants are the combinations of the subscription's options that concern speed.
func allVariants() []variant {
	var all []variant
	for _, binary := range []string{"off", "on"} {
		for _, streaming := range []string{"off", "on"} {
			all = append(all, settingsVariant(map[string]string{"binary": binary, "streaming": streaming}))
		}
	}
	return append(all, tunedVariant)
}

func settingsVariant(settings map[string]string) variant {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		parts = append(parts, name+"="+settings[name])
	}
	return variant{name: strings.Join(parts, "+"), options: settings}
}

func parseVariants(names []string) ([]variant, error) {
	var variants []variant
	for _, name := range names {
		switch name {
		case plainVariant.name:
			variants = append(variants, plainVariant)
		case tunedVariant.name:
			variants = append(variants, tunedVariant)
		case memoryVariant.name:
			variants = append(variants, memoryVariant)
		case "all":
			variants = append(append(variants, allVariants()...), memoryVariant)
		default:
			settings := map[string]string{}
			for setting := range strings.SplitSeq(name, "+") {
				key, value, ok := strings.Cut(setting, "=")
				if !ok || key != "binary" && key != "streaming" {
					return nil, fmt.Errorf("%w: --native %q: use default, tuned, memory, all, or binary=on|off+streaming=off|on|parallel", errUsage, name)
				}
				settings[key] = value
			}
			variants = append(variants, settingsVariant(settings))
		}
	}
	if len(variants) == 0 {
		return nil, fmt.Errorf("%w: --native is empty", errUsage)
	}
	return variants, nil
}

const majorWithParallel = 16

// subscription are the variant's options for a server.
func (v variant) subscription(major int) map[string]string {
	options := maps.Clone(v.options)
	if v.parallel && major >= majorWithParallel {
		options["streaming"] = "parallel"
	}
	return options
}

// walsenderMemory is what --decoding-memory is by default.
const walsenderMemory = "256MB"

// connection leads a subscription to the primary.
func (v variant) connection(url string) (string, error) {
	if !v.memory {
		return url, nil
	}
	parsed, err := neturl.Parse(url)
	if err != nil {
		return "", fmt.Errorf("the primary's URL: %w", err)
	}
	query := parsed.Query()
	query.Set("options", "-c logical_decoding_work_mem="+walsenderMemory)
	parsed.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20") // which libpq does not take for a space
	return parsed.String(), nil
}

// copyVariants are the ways to use the native first copy: with the indexes there from the beginning, or made by hand
// after it, and with two sync workers, as is the default, or with one for each table.
func copyVariants(tables int) []variant {
	binary := map[string]string{"binary": "on"}
	return []variant{
		{name: "default, indexes first"},
		{name: "default, indexes after", late: true},
		{name: "tuned, indexes first", options: binary, workers: tables},
		{name: "tuned, indexes after", options: binary, workers: tables, late: true},
	}
}
