package applier

import (
	"context"
	"strings"
	"time"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	changev1 "github.com/seed0419d559/syncline/gen/syncline/change/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
)

// neededMethods are those without which a source cannot be copied and followed, by the role of the process that serves them.
var neededMethods = map[string][]string{
	"logger": {
		loggerv1.LoggerService_Follow_FullMethodName, loggerv1.LoggerService_GetState_FullMethodName, loggerv1.LoggerService_GetRanges_FullMethodName,
		loggerv1.LoggerService_ReportApplied_FullMethodName, loggerv1.LoggerService_GetSet_FullMethodName,
	},
	"inventory": {
		inventoryv1.InventoryService_GetInventory_FullMethodName, inventoryv1.InventoryService_OpenSnapshot_FullMethodName, inventoryv1.InventoryService_RenewSnapshot_FullMethodName,
		inventoryv1.InventoryService_CloseSnapshot_FullMethodName, inventoryv1.InventoryService_Dump_FullMethodName,
	},
}

// capable refuses a process of a source whose version lacks what is needed. One that does not tell what it can do is taken at its word.
func capable(server *serverv1.Server) error {
	if len(server.GetCapabilities()) == 0 {
		return nil
	}
	can := map[string]bool{}
	for _, method := range server.GetCapabilities() {
		can["/"+method] = true
	}
	var lacks []string
	for _, role := range server.GetRoles() {
		for _, method := range neededMethods[role] {
			if !can[method] {
				lacks = append(lacks, strings.TrimPrefix(method, "/"))
			}
		}
	}
	if lacks == nil {
		return nil
	}
	return failed(reasonSourceOld, "the source runs Syncline %s, which lacks what this replica needs: %s; update the source first", server.GetVersion(), strings.Join(lacks, ", "))
}

// sameServer refuses a service of another server than the source: its rows, or its change log, are those of another database.
func (s *source) sameServer(role, serverID string) error {
	if serverID == "" || serverID == s.server.GetServerId() {
		return nil
	}
	return failed(reasonSourceMixed, "the %s of the source belongs to server %s, and the source is server %s: they are two databases; correct the address of the %s (--inventory of the replication, or the addresses that the primary was started with)",
		role, serverID, s.server.GetServerId(), role)
}

// surroundings are what the source's inventory told of its database beside the tables.
type surroundings struct {
	settings        *inventoryv1.DatabaseSettings // nil from an older inventory
	snapshotProblem string
	grants          map[uint32]string // statements on the source, by the OIDs of tables that it may not read
	position        *changev1.Position
}

func surroundingsOf(answer *inventoryv1.GetInventoryResponse) surroundings {
	s := surroundings{settings: answer.GetSettings(), snapshotProblem: answer.GetSnapshotProblem(), position: answer.GetPosition(), grants: map[uint32]string{}}
	for _, t := range answer.GetTables() {
		if t.GetGrantSql() != "" {
			s.grants[t.GetOid()] = t.GetGrantSql()
		}
	}
	return s
}

// clockRounds is how often the clock is asked for; the shortest round trip bounds the offset best.
const clockRounds = 3

// clock measures how far the source's clock is ahead of this one; nil when the source does not tell its time.
func (s *source) clock(ctx context.Context) (*applierv1.ClockOffset, error) {
	var best *applierv1.ClockOffset
	for range clockRounds {
		sent := time.Now()
		answer, err := serverv1.NewServerServiceClient(s.logger).GetServer(ctx, &serverv1.GetServerRequest{})
		trip := time.Since(sent)
		if err != nil {
			return nil, err //nolint:wrapcheck // the caller says what it is about
		}
		if answer.GetServer().GetTime() == nil {
			return nil, nil //nolint:nilnil // it does not tell
		}
		bound := trip.Seconds() / 2
		if best == nil || bound < best.GetBoundSeconds() {
			best = &applierv1.ClockOffset{OffsetSeconds: answer.GetServer().GetTime().AsTime().Sub(sent.Add(trip / 2)).Seconds(), BoundSeconds: bound}
		}
	}
	return best, nil
}
