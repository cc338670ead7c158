package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticksPerSecond is the unit of CPU times in /proc, the same on every architecture that Linux runs on today.
const ticksPerSecond = 100

// cpuTime is the CPU time of one process in seconds: its own, and that of the children that it has reaped.
type cpuTime struct {
	own, reaped float64
	parent      int
}

func readCPU(pid int) (cpuTime, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return cpuTime{}, err
	}
	return parseStat(text)
}

// ownCPU is the CPU time of a process itself in seconds, 0 when it is gone.
func ownCPU(pid int) float64 {
	t, err := readCPU(pid)
	if err != nil {
		return 0
	}
	return t.own
}

// parseStat reads /proc/PID/stat, see proc(5). Its second field, the command, stands in parentheses and may hold anything.
func parseStat(text []byte) (cpuTime, error) {
	const parent, user, system, childUser, childSystem = 1, 11, 12, 13, 14 // counted from the field after the command
	end := bytes.LastIndexByte(text, ')')
	fields := bytes.Fields(text[end+1:])
	if end < 0 || len(fields) <= childSystem {
		return cpuTime{}, fmt.Errorf("read /proc/PID/stat: unknown form %q", text)
	}
	var values [childSystem + 1]float64
	for _, i := range []int{parent, user, system, childUser, childSystem} {
		n, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return cpuTime{}, fmt.Errorf("read /proc/PID/stat: %w", err)
		}
		values[i] = float64(n)
	}
	return cpuTime{
		own:    (values[user] + values[system]) / ticksPerSecond,
		reaped: (values[childUser] + values[childSystem]) / ticksPerSecond,
		parent: int(values[parent]),
	}, nil
}

// clusterCPU is what a postmaster and all its children, the living and the reaped, have used, in seconds.
func clusterCPU(postmaster int) (float64, error) {
	main, err := readCPU(postmaster)
	if err != nil {
		return 0, err
	}
	total := main.own + main.reaped
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil {
			continue
		}
		if t, err := readCPU(pid); err == nil && t.parent == postmaster { // it may just have ended
			total += t.own + t.reaped
		}
	}
	return total, nil
}

// peakMemory is the largest resident set of a process so far, in bytes, without the shared memory that it holds now.
func peakMemory(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parsePeak(string(text))
}

func parsePeak(status string) (float64, error) {
	peak, shared := -1.0, 0.0
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		if name != "VmHWM" && name != "RssShmem" {
			continue
		}
		kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/PID/status: %w", err)
		}
		if name == "VmHWM" {
			peak = kilobytes * 1024
		} else {
			shared = kilobytes * 1024
		}
	}
	if peak < 0 {
		return 0, fmt.Errorf("read /proc/PID/status: no VmHWM in %q", status)
	}
	return peak - shared, nil
}

// diskUsage is the space that the files of a directory take, in bytes. What goes away while it is counted is left out.
func diskUsage(dir string) (bytes float64) {
	_ = filepath.WalkDir(dir, func(_ string, entry os.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it went away
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			bytes += float64(info.Size())
		}
		return nil
	})
	return bytes
}
