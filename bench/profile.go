package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

// profileSeconds is the longest time that a CPU profile covers.
const profileSeconds = 30

// startProfiles records the CPU of Syncline's processes from now on, if that was asked for. The function that it returns
// writes what was recorded and the heap into files that begin with a name. A profile is a help: a fault of it is printed.
func startProfiles(ctx context.Context, s side) (write func(e experiment, name string)) {
	own, ok := s.(*syncline)
	if !ok || own.profiles == "" {
		return func(experiment, string) {}
	}
	var waiting sync.WaitGroup
	services := []*service{own.primary, own.replica}
	files := make([]string, len(services))
	for i, service := range services {
		if service == nil || service.pid() == 0 {
			continue
		}
		files[i] = filepath.Join(service.dir, "cpu.pprof")
		waiting.Go(func() {
			warn(fetchProfile(ctx, service, fmt.Sprintf("profile?seconds=%d", profileSeconds), files[i]))
		})
	}
	return func(e experiment, name string) {
		waiting.Wait()
		for i, service := range services {
			if files[i] == "" {
				continue
			}
			base := filepath.Join(own.profiles, fmt.Sprintf("%s-%s-%s", e.version, name, service.role))
			warn(errors.Join(
				os.MkdirAll(own.profiles, 0o755), //nolint:gosec // others may look at it
				copyFile(files[i], base+".cpu.pprof"),
				fetchProfile(ctx, service, "heap", base+".heap.pprof"),
			))
		}
	}
}

func warn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: no profile:", err)
	}
}

func fetchProfile(ctx context.Context, s *service, what, file string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.http+"/debug/pprof/"+what, nil)
	if err != nil {
		return fmt.Errorf("ask for a profile: %w", err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask for a profile: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask for a profile: %s", answer.Status)
	}
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write a profile: %w", err)
	}
	_, err = io.Copy(out, answer.Body)
	return errors.Join(err, out.Close())
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read a profile: %w", err)
	}
	if err := os.WriteFile(to, data, 0o644); err != nil { //nolint:gosec // others may look at it
		return fmt.Errorf("write a profile: %w", err)
	}
	return nil
}
