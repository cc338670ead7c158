package applier

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	applierv1 "github.com/seed0419d559/syncline/gen/syncline/applier/v1"
	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
	"github.com/seed0419d559/syncline/internal/schema"
)

// handshakeTimeout bounds the first call to each service of a source.
const handshakeTimeout = 10 * time.Second

// source is the primary of a replication, reached through its services' clients.
type source struct {
	server    *serverv1.Server
	logger    grpc.ClientConnInterface
	inventory grpc.ClientConnInterface
	set       usedSet
	told      surroundings
	after     uint32 // the transaction whose effects descriptions of the source have to show, 0 for none
	release   func() // gives back what it is reached through; nil for a push, which stays
}

// reachable replaces a host that means "every address" or "this machine" by the one that the source was reached at.
func reachable(address, reachedAt string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	ip := net.ParseIP(host)
	if host == "" || ip != nil && ip.IsUnspecified() {
		if through, _, err := net.SplitHostPort(reachedAt); err == nil {
			return net.JoinHostPort(through, port)
		}
	}
	return address
}

func whoIs(ctx context.Context, conn grpc.ClientConnInterface, address string) (*serverv1.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	answer, err := serverv1.NewServerServiceClient(conn).GetServer(ctx, &serverv1.GetServerRequest{})
	switch {
	case err == nil:
		return answer.GetServer(), capable(answer.GetServer())
	case rpc.Code(err) == codes.Unimplemented:
		return nil, failed(reasonNotSyncline, "what listens at %s is no Syncline server; give the gRPC address of a primary (default port 7400)", address)
	case rpc.Reason(err) != "":
		return nil, fmt.Errorf("ask the source at %s who it is: %w", address, err)
	}
	if problem := rpc.HandshakeProblem(err, "source-"); problem != "" {
		return nil, rpc.Errorf(codes.Unavailable, reasonNoSource, "no connection to the source at %s: %s (%s)", address, problem, rpc.Message(err))
	}
	return nil, rpc.Errorf(codes.Unavailable, reasonNoSource, "no Syncline server answers at %s; is it running, and is that its gRPC port (7400 by default, 7480 is HTTP)?%s %s", address, rpc.EncryptionHint(err, "source-"), rpc.Message(err))
}

func (s *source) close() {
	if s.release != nil {
		s.release()
	}
}

func (s *source) loggerClient() loggerv1.LoggerServiceClient {
	return loggerv1.NewLoggerServiceClient(s.logger)
}

func (s *source) inventoryClient() inventoryv1.InventoryServiceClient {
	return inventoryv1.NewInventoryServiceClient(s.inventory)
}

// forget has the logger remove a follower that has just gone, which it may not have noticed yet.
func (s *source) forget(ctx context.Context, follower string) error {
	for {
		_, err := s.loggerClient().DeleteFollower(ctx, &loggerv1.DeleteFollowerRequest{Follower: follower})
		switch {
		case rpc.Reason(err) == reasonNoFollower:
			return nil
		case rpc.Reason(err) != reasonFollows:
			return err //nolint:wrapcheck // the caller says what it is about
		}
		select {
		case <-ctx.Done():
			return err //nolint:wrapcheck // the caller says what it is about
		case <-time.After(loggerPoll):
		}
	}
}

// describe returns the primary's selected tables, as far as they are in the set.
func (s *source) describe(ctx context.Context, selection schema.Selection) (schema.Database, error) {
	request := &inventoryv1.GetInventoryRequest{Tables: &inventoryv1.TableSelection{}}
	if s.set.name != "" {
		return s.describeSet(ctx, selection)
	}
	for _, p := range selection.Include {
		request.Tables.Include = append(request.Tables.Include, p.String())
	}
	for _, p := range selection.Exclude {
		request.Tables.Exclude = append(request.Tables.Exclude, p.String())
	}
	database, _, err := s.readInventory(ctx, request)
	return database, err
}

// describeFor returns those of the primary's tables that a replication selects.
func (s *source) describeFor(ctx context.Context, spec *applierv1.ReplicationSpec) (schema.Database, error) {
	selection, err := schema.ParseSelection(spec.GetIncludeTables(), spec.GetExcludeTables())
	if err != nil {
		return schema.Database{}, err //nolint:wrapcheck // it names the field
	}
	database, err := s.describe(ctx, selection)
	if rpc.Code(err) == codes.NotFound { // one that it names is gone since the replication's tables were chosen
		return s.describe(ctx, schema.Selection{})
	}
	return database, err
}

func (s *source) readInventory(ctx context.Context, request *inventoryv1.GetInventoryRequest) (database schema.Database, answer *inventoryv1.GetInventoryResponse, err error) {
	request.AfterXid = s.after
	answer, err = s.inventoryClient().GetInventory(ctx, request, rpc.LargeAnswer())
	if err != nil {
		return schema.Database{}, nil, fmt.Errorf("read the source's inventory: %w", err)
	}
	if err := s.sameServer("inventory", answer.GetServerId()); err != nil {
		return schema.Database{}, nil, err
	}
	s.told = surroundingsOf(answer)
	if err := json.Unmarshal(answer.GetDescriptors(), &database); err != nil {
		return schema.Database{}, nil, fmt.Errorf("read the source's inventory: %w", err)
	}
	return database, answer, nil
}
