package principals

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	accessv1 "github.com/seed0419d559/syncline/gen/syncline/access/v1"
	"github.com/seed0419d559/syncline/internal/access"
	"github.com/seed0419d559/syncline/internal/postgres"
	"github.com/seed0419d559/syncline/internal/rpc"
)

// Errors is the table from this package's sentinels to statuses.
func Errors() rpc.Table {
	return rpc.Table{
		{Sentinel: ErrExists, Code: codes.AlreadyExists, Reason: "PRINCIPAL_EXISTS"},
		{Sentinel: ErrUnknown, Code: codes.NotFound, Reason: "PRINCIPAL_NOT_FOUND"},
		{Sentinel: ErrLastAdmin, Code: codes.FailedPrecondition, Reason: "LAST_ADMIN"},
		{Sentinel: ErrNoToken, Code: codes.FailedPrecondition, Reason: "NO_TOKEN"},
		{Sentinel: ErrNotPrepared, Code: codes.FailedPrecondition, Reason: "NOT_PREPARED"},
		{Sentinel: errDatabase, Code: codes.Unavailable, Reason: "DATABASE_UNREACHABLE"},
	}
}

// errDatabase says that the node's database does not answer now.
var errDatabase = fmt.Errorf("the node's database does not answer")

func passing(err error) error {
	if postgres.IsTransient(err) {
		return fmt.Errorf("%w: %w", errDatabase, err)
	}
	return err
}

// Service is the AccessService. Another process may have the same one on the same database.
type Service struct {
	accessv1.UnimplementedAccessServiceServer
	store *Store
	// changed is told after each change, before it is answered. What it misses is read a moment later.
	changed func(ctx context.Context)
	direct  bool // for those who may write the table themselves, and need not be kept from locking themselves out
}

// Service returns the service that manages the registry's principals.
func (r *Registry) Service() *Service {
	return &Service{store: r.store, changed: func(ctx context.Context) {
		if !r.config.Required {
			return
		}
		if err := r.reload(ctx); err != nil {
			r.config.Log.Warn("principals cannot be read again at once", "error", err)
		}
	}}
}

// Direct returns a service on a database itself, for those who may write there anyway.
func Direct(db database) *Service {
	return &Service{store: NewStore(db), changed: func(context.Context) {}, direct: true}
}

// Register adds the service to a gRPC server.
func (s *Service) Register(registrar grpc.ServiceRegistrar) {
	accessv1.RegisterAccessServiceServer(registrar, s)
}

// CreatePrincipal implements accessv1.AccessServiceServer.
func (s *Service) CreatePrincipal(ctx context.Context, in *accessv1.CreatePrincipalRequest) (*accessv1.CreatePrincipalResponse, error) {
	record, err := newRecord(in)
	if err != nil {
		return nil, err
	}
	var token string
	if record.Certificate == "" {
		token = access.NewToken()
		hash := access.HashToken(token)
		record.TokenHash = &hash
	}
	made, err := s.store.Create(ctx, record)
	if err != nil {
		return nil, passing(err)
	}
	s.changed(ctx)
	return &accessv1.CreatePrincipalResponse{Principal: made.proto(), Token: token}, nil
}

// newRecord reads a new principal.
func newRecord(in *accessv1.CreatePrincipalRequest) (*Record, error) {
	record := &Record{Principal: access.Principal{Name: in.GetName(), Role: roleOf(in.GetRole())}}
	if err := access.CheckName(in.GetName()); err != nil {
		return nil, rpc.Invalid("name", "%v", err)
	}
	if record.Role == "" {
		return nil, rpc.Invalid("role", "it is needed: reader, replicator, operator or admin")
	}
	for _, g := range in.GetGrants() {
		record.Grants = append(record.Grants, access.Grant{Set: g.GetSet(), Parameters: g.GetParameters()})
	}
	if err := access.CheckGrants(record.Role, record.Grants); err != nil {
		return nil, rpc.Invalid("grants", "%v", err)
	}
	if in.GetCertificate() == "" {
		return record, nil
	}
	var err error
	if record.Certificate, err = access.ParseCertificateName(in.GetCertificate()); err != nil {
		return nil, rpc.Invalid("certificate", "%v", err)
	}
	return record, nil
}

// ListPrincipals implements accessv1.AccessServiceServer.
func (s *Service) ListPrincipals(ctx context.Context, _ *accessv1.ListPrincipalsRequest) (*accessv1.ListPrincipalsResponse, error) {
	list, err := s.store.List(ctx)
	if err != nil {
		return nil, passing(err)
	}
	answer := &accessv1.ListPrincipalsResponse{}
	for _, r := range list {
		answer.Principals = append(answer.Principals, r.proto())
	}
	return answer, nil
}

// DeletePrincipal implements accessv1.AccessServiceServer.
func (s *Service) DeletePrincipal(ctx context.Context, in *accessv1.DeletePrincipalRequest) (*accessv1.DeletePrincipalResponse, error) {
	if err := access.CheckName(in.GetName()); err != nil {
		return nil, rpc.Invalid("name", "%v", err)
	}
	if err := s.store.Delete(ctx, in.GetName(), s.direct); err != nil {
		return nil, passing(err)
	}
	s.changed(ctx)
	return &accessv1.DeletePrincipalResponse{}, nil
}

// RotateToken implements accessv1.AccessServiceServer.
func (s *Service) RotateToken(ctx context.Context, in *accessv1.RotateTokenRequest) (*accessv1.RotateTokenResponse, error) {
	if err := access.CheckName(in.GetName()); err != nil {
		return nil, rpc.Invalid("name", "%v", err)
	}
	token := access.NewToken()
	r, err := s.store.Rotate(ctx, in.GetName(), access.HashToken(token))
	if err != nil {
		return nil, passing(err)
	}
	s.changed(ctx)
	return &accessv1.RotateTokenResponse{Principal: r.proto(), Token: token}, nil
}

// roleOf is the role of its value on the wire; "" for none.
func roleOf(r accessv1.Role) access.Role {
	for _, role := range access.Roles {
		if RoleProto(role) == r {
			return role
		}
	}
	return ""
}

// RoleProto is a role as it stands on the wire.
func RoleProto(r access.Role) accessv1.Role {
	return accessv1.Role(accessv1.Role_value["ROLE_"+strings.ToUpper(string(r))])
}

func (r *Record) proto() *accessv1.Principal {
	p := &accessv1.Principal{Name: r.Name, Role: RoleProto(r.Role), Certificate: r.Certificate, CreateTime: timestamppb.New(r.CreatedAt)}
	if !r.TokenAt.IsZero() {
		p.TokenTime = timestamppb.New(r.TokenAt)
	}
	for _, g := range r.Grants {
		p.Grants = append(p.Grants, &accessv1.Grant{Set: g.Set, Parameters: g.Parameters})
	}
	return p
}
