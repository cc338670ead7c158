package node

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	serverv1 "github.com/seed0419d559/syncline/gen/syncline/server/v1"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// Names of the services in Server.roles.
const (
	RoleLogger    = "logger"
	RoleInventory = "inventory"
	RoleApplier   = "applier"
)

// Description is what a process tells of itself and of its node.
type Description struct {
	Identity Identity
	Roles    []string // what this process serves: RoleLogger, …
	Version  string   // of Syncline
	Start    time.Time

	// Listen is where this process listens, and Advertise where others reach it. Without Advertise that is the address at
	// which the asker reached it, for that one works from where the asker is.
	Listen, Advertise string
	// Logger and Inventory are the addresses of the node's services in other processes, "" for those that this one serves
	// or that there are not.
	Logger, Inventory string
}

// Service answers who a node is.
type Service struct {
	serverv1.UnimplementedServerServiceServer
	description Description
	served      interface {
		GetServiceInfo() map[string]grpc.ServiceInfo
	}
}

// NewService makes the service.
func NewService(d Description) *Service { return &Service{description: d} }

// Register adds the service to a gRPC server.
func (s *Service) Register(registrar grpc.ServiceRegistrar) {
	serverv1.RegisterServerServiceServer(registrar, s)
	s.served, _ = registrar.(interface {
		GetServiceInfo() map[string]grpc.ServiceInfo
	})
}

// capabilities are the methods of Syncline's own services that the process serves.
func (s *Service) capabilities() []string {
	if s.served == nil {
		return nil
	}
	var list []string
	for service, info := range s.served.GetServiceInfo() {
		if !strings.HasPrefix(service, "syncline.") {
			continue
		}
		for _, method := range info.Methods {
			list = append(list, service+"/"+method.Name)
		}
	}
	slices.Sort(list)
	return list
}

// GetServer implements serverv1.ServerServiceServer.
func (s *Service) GetServer(ctx context.Context, _ *serverv1.GetServerRequest) (*serverv1.GetServerResponse, error) {
	d := &s.description
	server := &serverv1.Server{
		ServerId:         d.Identity.ServerID,
		Roles:            d.Roles,
		Version:          d.Version,
		PostgresVersion:  int32(d.Identity.PostgresVersion),
		SystemIdentifier: d.Identity.SystemIdentifier,
		Database:         d.Identity.Database,
		LoggerAddress:    d.Logger,
		InventoryAddress: d.Inventory,
		StartTime:        timestamppb.New(d.Start),
		Capabilities:     s.capabilities(),
		Time:             timestamppb.Now(),
	}
	here := s.reachedAt(ctx)
	for _, role := range d.Roles {
		switch role {
		case RoleLogger:
			server.LoggerAddress = here
		case RoleInventory:
			server.InventoryAddress = here
		}
	}
	return &serverv1.GetServerResponse{Server: server}, nil
}

// reachedAt is the address of this process as the asker can use it.
func (s *Service) reachedAt(ctx context.Context) string {
	if s.description.Advertise != "" {
		return s.description.Advertise
	}
	if incoming, ok := metadata.FromIncomingContext(ctx); ok {
		for _, authority := range incoming.Get(":authority") {
			if _, err := rpc.CheckAddress(authority); err == nil {
				return authority
			}
		}
	}
	return s.description.Listen
}
