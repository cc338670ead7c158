package pgserver

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// settingsName is included at the end of postgresql.conf; ALTER SYSTEM still stands above it.
const settingsName = "syncline.conf"

// defaults make a server that can be a primary and a replica, for a machine that is used for other things too.
func (s *Server) defaults() map[string]string {
	return map[string]string{
		"listen_addresses":          "127.0.0.1",
		"port":                      strconv.Itoa(s.port),
		"unix_socket_directories":   s.socket,
		"wal_level":                 "logical",
		"max_connections":           "100",
		"max_wal_senders":           "20",
		"max_replication_slots":     "20",
		"max_prepared_transactions": "10",
		"timezone":                  "UTC",
		"log_timezone":              "UTC",
	}
}

func (s *Server) writeSettings(cfg Config) error {
	all := s.defaults()
	if cfg.NoSync {
		all["fsync"] = "off"
		all["full_page_writes"] = "off"
	}
	maps.Copy(all, cfg.Settings)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.ContainsAny(name+all[name], "\n\r\x00") {
			return fmt.Errorf("write setting %q: line break in name or value", name)
		}
		fmt.Fprintf(&text, "%s = '%s'\n", name, strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(all[name]))
	}
	path := filepath.Join(s.DataDir(), settingsName)
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		return err
	}
	if err := s.account.own(path); err != nil {
		return err
	}
	main, err := os.OpenFile(filepath.Join(s.DataDir(), "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(main, "\ninclude '%s'\n", settingsName)
	return errors.Join(err, main.Close())
}

// ready reads the state that the postmaster writes to line 8 of postmaster.pid, as pg_ctl does. The first line must be
// the running child: a killed server leaves its file behind.
func (s *Server) ready() bool {
	text, err := os.ReadFile(filepath.Join(s.DataDir(), "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	return len(lines) >= 8 && strings.TrimSpace(lines[0]) == strconv.Itoa(s.child.pid) &&
		strings.TrimSpace(lines[7]) == "ready"
}

func (s *Server) logTail() string {
	text, err := os.ReadFile(s.LogPath())
	if err != nil {
		return err.Error()
	}
	return lastLines(text)
}

// lastLines is as much of a program's output as an error should carry.
func lastLines(out []byte) string {
	const most = 2000
	out = bytes.TrimSpace(out)
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return string(out)
}

// poll asks until done or until the deadline has passed.
func poll(deadline time.Duration, done func() (bool, error), what string) error {
	limit := time.After(deadline)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if ok {
			return nil
		}
		select {
		case <-limit:
			return fmt.Errorf("wait for %s: nothing after %v", what, deadline)
		case <-tick.C:
		}
	}
}
