package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/seed0419d559/syncline/internal/changelog"
	"github.com/seed0419d559/syncline/services/applier"
	"github.com/seed0419d559/syncline/services/applier/apply"
	"github.com/seed0419d559/syncline/services/inventory"
	"github.com/seed0419d559/syncline/services/logger"
)

// stage is when a fault point is passed.
type stage int

const (
	atStart       stage = iota // while the change log is begun
	whileCopied                // during the first copy, and again when a table is added
	whileLoaded                // while changes come in
	whilePurged                // when the change log is larger than it may be
	whileRepaired              // while rows of the replica are mended
	whileMended                // during a first copy that mends what the replica holds
)

// faultPoint is a named point between two durable steps, and how often it is passed before the process is killed there.
type faultPoint struct {
	name    string
	process string
	stage   stage
	counts  []int
}

// faultPoints are all those of servers; TestFaultTable says so.
var faultPoints = []faultPoint{
	{logger.FaultPublished, "logger", atStart, []int{1}},
	{logger.FaultSlotMade, "logger", atStart, []int{1}},
	{changelog.FaultMetaStored, "logger", atStart, []int{1}},
	{changelog.FaultBlocksPurged, "logger", atStart, []int{1}},
	{changelog.FaultBegun, "logger", atStart, []int{1}},
	{logger.FaultLogReset, "logger", atStart, []int{1}},
	{changelog.FaultRelationStored, "logger", whileLoaded, []int{1, 5}},
	{changelog.FaultPublish, "logger", whileLoaded, []int{1, 5}},
	{changelog.FaultPublished, "logger", whileLoaded, []int{1, 5}},
	{changelog.FaultAcknowledged, "logger", whileLoaded, []int{1, 5}},
	{logger.FaultReceived, "logger", whileLoaded, []int{1, 900}},
	{logger.FaultAppended, "logger", whileLoaded, []int{1, 700}},
	{logger.FaultSpooled, "logger", whileLoaded, []int{1, 700}},
	{logger.FaultReplayed, "logger", whileLoaded, []int{1, 700}},
	{logger.FaultDurable, "logger", whileLoaded, []int{1, 5}},
	{logger.FaultConfirmed, "logger", whileLoaded, []int{1, 5}},
	{changelog.FaultPurge, "logger", whilePurged, []int{1}},
	{changelog.FaultPurged, "logger", whilePurged, []int{1}},

	// The points of dumps come first, while there are many tables to copy.
	{inventory.FaultDumpImported, "inventory", whileCopied, []int{1, 5}},
	{inventory.FaultDumpLocked, "inventory", whileCopied, []int{1, 5}},
	{inventory.FaultDumpCopied, "inventory", whileCopied, []int{1, 5}},
	{inventory.FaultPositionTaken, "inventory", whileCopied, []int{1, 2}},
	{inventory.FaultSlotMade, "inventory", whileCopied, []int{1, 2}},
	{inventory.FaultSnapshotImported, "inventory", whileCopied, []int{1}},
	{inventory.FaultSettled, "inventory", whileCopied, []int{1}},
	{inventory.FaultExported, "inventory", whileCopied, []int{1}},
	{inventory.FaultSlotDropped, "inventory", whileCopied, []int{1}},
	{inventory.FaultLogReached, "inventory", whileCopied, []int{1}},
	{inventory.FaultLeased, "inventory", whileCopied, []int{1, 2}},

	{applier.FaultPrepared, "applier", whileCopied, []int{1}},
	{applier.FaultSnapshotOpened, "applier", whileCopied, []int{1}},
	{applier.FaultTableBegun, "applier", whileCopied, []int{1, 5}},
	{applier.FaultChunkWritten, "applier", whileCopied, []int{1, 5}},
	{applier.FaultChunkDone, "applier", whileCopied, []int{1, 5}},
	{applier.FaultTableDone, "applier", whileCopied, []int{1, 5}},
	{applier.FaultBuilt, "applier", whileCopied, []int{1}},
	{applier.FaultPositioned, "applier", whileCopied, []int{1}},
	{applier.FaultCaughtUp, "applier", whileCopied, []int{1}},
	{apply.FaultSliceWritten, "applier", whileLoaded, []int{1, 5}},
	{apply.FaultSetWiseFailed, "applier", whileLoaded, []int{1, 5}},
	{apply.FaultBeforeCommit, "applier", whileLoaded, []int{1, 5}},
	{apply.FaultAfterCommit, "applier", whileLoaded, []int{1, 5}},
	{applier.FaultMending, "applier", whileMended, []int{1, 2}},
	{applier.FaultRepairStanding, "applier", whileRepaired, []int{1}},
	{applier.FaultRepairWritten, "applier", whileRepaired, []int{1, 3}},
	{applier.FaultRepairCommitted, "applier", whileRepaired, []int{1, 2}},
}

// step is one kill.
type step struct {
	point string
	count int
}

// stepsOf lists the kills of a process at a stage, in the order of the table.
func stepsOf(process string, at stage) []step {
	var steps []step
	for _, p := range faultPoints {
		if p.process != process || p.stage != at {
			continue
		}
		for _, count := range p.counts {
			steps = append(steps, step{p.name, count})
		}
	}
	return steps
}

// TestFaultTable holds the table against the source: a point that is added to a service is added here too.
func TestFaultTable(t *testing.T) {
	inTable := map[string]bool{}
	for _, p := range slices.Concat(faultPoints, backupFaultPoints, controlFaultPoints, jobFaultPoints, restFaultPoints, scheduleFaultPoints, quarantineFaultPoints, pushFaultPoints, setFaultPoints) {
		if inTable[p.name] {
			t.Errorf("%q stands in the table twice", p.name)
		}
		inTable[p.name] = true
	}
	inSource := map[string]string{} // value to constant
	for _, root := range []string{"../../cmd", "../../internal", "../../services"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			return faultConstants(path, inSource)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, value := range slices.Sorted(maps.Keys(inSource)) {
		if !inTable[value] {
			t.Errorf("fault point %s (%q) is not in the table", inSource[value], value)
		}
		delete(inTable, value)
	}
	for name := range inTable {
		t.Errorf("fault point %q of the table is not a constant in the source", name)
	}
}

// faultConstants finds the constants named Fault… in a file.
func faultConstants(path string, found map[string]string) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, decl := range file.Decls {
		block, ok := decl.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST {
			continue
		}
		for _, spec := range block.Specs {
			value := spec.(*ast.ValueSpec)
			for i, name := range value.Names {
				if !strings.HasPrefix(name.Name, "Fault") || i >= len(value.Values) {
					continue
				}
				if literal, ok := value.Values[i].(*ast.BasicLit); ok && literal.Kind == token.STRING {
					text, err := strconv.Unquote(literal.Value)
					if err != nil {
						return err
					}
					found[text] = file.Name.Name + "." + name.Name
				}
			}
		}
	}
	return nil
}
