package e2e

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	"github.com/seed0419d559/syncline/internal/backup"
	"github.com/seed0419d559/syncline/internal/pgtest"
	"github.com/seed0419d559/syncline/internal/restore"
)

// backupFaultPoints are those of dumps and restores; TestFaultTable says that there are no others.
var backupFaultPoints = []faultPoint{
	{name: backup.FaultSnapshotOpened, process: "dump", counts: []int{1}},
	{name: backup.FaultFileWritten, process: "dump", counts: []int{1, 9}},
	{name: backup.FaultManifestWritten, process: "dump", counts: []int{1}},
	{name: backup.FaultRenamed, process: "dump", counts: []int{1}},
	{name: restore.FaultChecked, process: "restore", counts: []int{1}},
	{name: restore.FaultPrepared, process: "restore", counts: []int{1}},
	{name: restore.FaultBegun, process: "restore", counts: []int{1}},
	{name: restore.FaultFileLoaded, process: "restore", counts: []int{1, 5}},
	{name: restore.FaultFileDone, process: "restore", counts: []int{1, 5}},
	{name: restore.FaultBuilding, process: "restore", counts: []int{1, 9}},
	{name: restore.FaultBuilt, process: "restore", counts: []int{1}},
	{name: restore.FaultDone, process: "restore", counts: []int{1}},
}

// killed runs the binary until it kills itself at a point.
func killed(t testing.TB, point string, count int, args ...string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "faults")
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), faultEnv(point, count, log)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGKILL || faultsHit(t, log)[point] != 1 {
		t.Fatalf("syncline %s was not killed at %s:%d: %v\n%s", args[0], point, count, err, out.String())
	}
	t.Logf("syncline %s was killed at %s:%d", args[0], point, count)
}

// TestBackupKilled kills a dump and a restore between any two of their durable steps. A dump that was killed is no backup, a restore that
// was killed is none that a replication begins with, and both are whole in the end.
func TestBackupKilled(t *testing.T) {
	t.Parallel()
	source, target := newSource(t, pgtest.WithFsync(false)), newTarget(t, pgtest.WithFsync(false))
	sourceURL, targetURL := source.Database(t), target.Database(t)
	bank := pgtest.NewBank(t, sourceURL, pgtest.BankOptions{Accounts: 50})
	changes := newLoad(t, sourceURL)
	pgtest.Exec(t, changes.conn, `CREATE TABLE bank.child (id integer PRIMARY KEY, place integer REFERENCES bank.places);
		INSERT INTO bank.child SELECT n, n FROM generate_series(1, 100) n`)
	primary, replica := startPrimary(t, sourceURL), startReplica(t, targetURL)
	dir := filepath.Join(t.TempDir(), "backup")
	dump := []string{"dump", "--addr", primary.grpc, "--out", dir}
	for _, p := range backupFaultPoints {
		for _, count := range p.counts {
			if p.process != "dump" {
				continue
			}
			killed(t, p.name, count, dump...)
			if p.name != backup.FaultRenamed {
				wontRun(t, []string{"not a backup", "no such directory"}, "backup", "check", dir)
				wontRun(t, []string{"not a backup"}, "restore", dir+backup.PartialSuffix+"/data", "--postgres", targetURL)
			}
		}
	}
	must(t, "backup", "check", dir)
	wontRun(t, []string{"it exists already", "choose another name"}, dump...)

	fromRestore := func(s *applierv1.ReplicationSpec) { s.FromRestore = true }
	for _, p := range backupFaultPoints {
		for _, count := range p.counts {
			if p.process != "restore" {
				continue
			}
			killed(t, p.name, count, "restore", dir, "--postgres", targetURL)
			meddle(t, pgtest.Connect(t, targetURL), p.name, count, "restore", dir, "--postgres", targetURL)
			if p.name != restore.FaultDone {
				_, err := replica.create("all", primary.grpc, fromRestore)
				requireRefused(t, err, codes.FailedPrecondition, "NO_RESTORE")
			}
		}
	}
	wontRun(t, []string{"already hold rows", "--replace"}, "restore", dir, "--postgres", targetURL)
	random := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		if err := changes.step(random); err != nil {
			t.Fatal(err)
		}
	}
	replica.mustCreate("all", primary.grpc, fromRestore)
	replica.waitApplied("all", patience)
	pgtest.RequireEqual(t, sourceURL, targetURL)
	if err := bank.CheckConsistent(t.Context(), pgtest.Connect(t, targetURL)); err != nil {
		t.Error(err)
	}
	if n := pgtest.QueryRow[int](t, pgtest.Connect(t, targetURL), "SELECT count(*) FROM pg_constraint WHERE conrelid = 'bank.child'::regclass AND contype = 'f'"); n != 1 {
		t.Errorf("%d foreign keys", n)
	}
	leftover, err := filepath.Glob(filepath.Dir(dir) + "/*")
	if err != nil || len(leftover) != 1 {
		t.Errorf("left beside the backup: %s", strings.Join(leftover, " "))
	}
}

// meddle does to a restore that was killed what its next run has to notice.
func meddle(t testing.TB, conn *pgx.Conn, point string, count int, args ...string) {
	t.Helper()
	switch {
	case point == restore.FaultFileLoaded && count == 5: // what is loaded is not all there: the next run begins anew
		pgtest.Exec(t, conn, "DROP TABLE bank.small_1; CREATE TABLE bank.small_1 (id integer, note text)")
		pgtest.Exec(t, conn, "DROP TABLE bank.small_2")
	case point == restore.FaultBuilt: // a row too many
		pgtest.Exec(t, conn, "INSERT INTO bank.small_3 VALUES (1000)")
		wontRun(t, []string{"bank.small_3 has 1 rows that the restore did not write", "--replace"}, args...)
		pgtest.Exec(t, conn, "DELETE FROM bank.small_3 WHERE id = 1000")
	}
}
