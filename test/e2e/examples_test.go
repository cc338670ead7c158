package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed0419d559/syncline/internal/pgtest"
)

// TestExamples runs the examples as a user does, each in databases of its own. They prove by themselves that they have worked, and leave nothing.
func TestExamples(t *testing.T) {
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	sql := filepath.Join(t.TempDir(), "sql")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", sql, "../../examples/sql").CombinedOutput(); err != nil {
		t.Fatalf("build examples/sql: %v\n%s", err, out)
	}
	scripts, err := filepath.Glob(filepath.Join("..", "..", "examples", "*", "run.sh"))
	if err != nil || len(scripts) < 3 {
		t.Fatalf("examples %v, %v", scripts, err)
	}
	for _, script := range scripts {
		name := filepath.Base(filepath.Dir(script))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sourceURL, targetURL := source.Database(t), target.Database(t)
			before := [2][]string{objects(t, pgtest.Connect(t, sourceURL)), objects(t, pgtest.Connect(t, targetURL))}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			run := exec.CommandContext(ctx, script)
			run.Env = append(os.Environ(), "SOURCE_URL="+sourceURL, "TARGET_URL="+targetURL, "SYNCLINE="+binary, "EXAMPLE_SQL="+sql,
				"PRIMARY_GRPC="+freeAddress(t), "REPLICA_GRPC="+freeAddress(t))
			run.Cancel = func() error { return run.Process.Signal(os.Interrupt) } // so that it ends its servers
			run.WaitDelay = time.Minute
			out, err := run.CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "The "+name+" example has worked.\n") || strings.Count(string(out), "proved: ") < 3 {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
			requireUnchanged(t, before[0], objects(t, pgtest.Connect(t, sourceURL)))
			requireUnchanged(t, before[1], objects(t, pgtest.Connect(t, targetURL)))
		})
	}
}
