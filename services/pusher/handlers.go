package pusher

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	loggerv1 "github.com/seed0419d559/syncline/gen/syncline/logger/v1"
	pushv1 "github.com/seed0419d559/syncline/gen/syncline/push/v1"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/rpc"
)

const (
	maxPushes = 1000
	maxPage   = 1000
)

// CreatePush checks the set, stores the push and starts it.
func (s *Service) CreatePush(ctx context.Context, in *pushv1.CreatePushRequest) (*pushv1.CreatePushResponse, error) {
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	if err := validate(in.GetName(), in.GetSpec()); err != nil {
		return nil, err
	}
	if in.GetSpec().GetSet() != "" { // a set that there is not, or that wants other parameters, is refused by the logger
		if _, err := s.loggerClient().GetState(ctx, &loggerv1.GetStateRequest{Set: in.GetSpec().GetSet(), Parameters: in.GetSpec().GetParameters()}); err != nil {
			return nil, err
		}
	}
	if err := s.naming.take(ctx); err != nil {
		return nil, err
	}
	defer s.naming.give()
	s.mu.Lock()
	n := len(s.pushes)
	s.mu.Unlock()
	if n >= maxPushes {
		return nil, rpc.Errorf(codes.ResourceExhausted, "TOO_MANY_PUSHES", "there are %d pushes, and a node has no more; delete one", n)
	}
	fresh, err := s.store.insert(ctx, in.GetName(), in.GetSpec())
	if err != nil {
		s.adoptLost(ctx, in.GetName())
		return nil, err
	}
	fault.Point(FaultStored)
	return &pushv1.CreatePushResponse{Push: s.adopt(fresh).proto()}, nil
}

// adopt takes up what is stored of a push.
func (s *Service) adopt(one *stored) *push {
	p := s.newPush(one)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushes[one.name] = p
	if one.wanted == wantedRunning {
		p.start(s.runCtx)
	}
	return p
}

// adoptLost takes up a push that is stored although nobody was told so: the session broke while it was being stored.
func (s *Service) adoptLost(ctx context.Context, name string) {
	if _, err := s.find(ctx, name); rpc.Reason(err) != reasonNotFound {
		return
	}
	if one, err := s.store.get(ctx, name); err == nil {
		s.adopt(one)
	}
}

// GetPush returns one push.
func (s *Service) GetPush(ctx context.Context, in *pushv1.GetPushRequest) (*pushv1.GetPushResponse, error) {
	p, err := s.find(ctx, in.GetName())
	if err != nil {
		return nil, err
	}
	return &pushv1.GetPushResponse{Push: p.proto()}, nil
}

// ListPushes returns a page of the pushes, by name. A page's token is the last name before it.
func (s *Service) ListPushes(ctx context.Context, in *pushv1.ListPushesRequest) (*pushv1.ListPushesResponse, error) {
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	size := int(in.GetPageSize())
	switch {
	case size < 0 || size > maxPage:
		return nil, rpc.Invalid("page_size", "%d is not from 0 to %d", size, maxPage)
	case size == 0:
		size = maxPage
	}
	if token := in.GetPageToken(); token != "" && !nameForm.MatchString(token) {
		return nil, rpc.Invalid("page_token", "%.100q is none that was given", token)
	}
	s.mu.Lock()
	var list []*push
	for name, p := range s.pushes {
		if name > in.GetPageToken() {
			list = append(list, p)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b *push) int { return strings.Compare(a.name, b.name) })
	out := &pushv1.ListPushesResponse{}
	for i, p := range list {
		if i == size {
			out.NextPageToken = list[i-1].name
			break
		}
		out.Pushes = append(out.Pushes, p.proto())
	}
	return out, nil
}

// changeable are the fields that an update may change. All of them but the description are about the connection.
var changeable = []string{"target", "token", "tls", "proxy", "description", "retry_base", "retry_cap"}

// UpdatePush stores a change and has the push go on with it.
func (s *Service) UpdatePush(ctx context.Context, in *pushv1.UpdatePushRequest) (*pushv1.UpdatePushResponse, error) {
	p, err := s.decide(ctx, in.GetName(), func(p *push) error {
		before := p.snapshot()
		if err := checkETag(before, in.GetEtag()); err != nil {
			return err
		}
		spec, err := merge(before.spec, in)
		if err != nil {
			return err
		}
		if err := validate(before.name, spec); err != nil {
			return err
		}
		fresh, err := p.write(func() (*stored, error) { return s.store.update(ctx, before.name, spec) })
		if err != nil {
			return err
		}
		if fresh.wanted == wantedRunning {
			p.stop()
			s.start(p)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &pushv1.UpdatePushResponse{Push: p.proto()}, nil
}

// merge sets the fields that the mask names. A stored token goes nowhere else without being given again.
func merge(before *pushv1.PushSpec, in *pushv1.UpdatePushRequest) (*pushv1.PushSpec, error) {
	paths := in.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		return nil, rpc.Invalid("update_mask", "name the fields of the spec that shall change, as in target,token")
	}
	spec, from := proto.CloneOf(before), in.GetSpec()
	if from == nil {
		from = &pushv1.PushSpec{}
	}
	p := &problems{}
	fields := spec.ProtoReflect().Descriptor().Fields()
	for _, path := range paths {
		field := fields.ByName(protoreflect.Name(path))
		switch {
		case field == nil:
			p.add("update_mask", "%.100q is no field of a push's spec", path)
		case !slices.Contains(changeable, path):
			p.add("spec."+path, "is decided when a push is created; how the target applies it is changed there with `syncline replication update`, for anything else delete the push and create it again")
		case from.ProtoReflect().Has(field):
			spec.ProtoReflect().Set(field, from.ProtoReflect().Get(field))
		default:
			spec.ProtoReflect().Clear(field)
		}
	}
	from.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(paths, string(field.Name())) {
			p.add("spec."+string(field.Name()), "is set, but update_mask does not name it")
		}
		return true
	})
	if before.GetToken() != "" && !slices.Contains(paths, "token") {
		for _, path := range []string{"target", "tls", "proxy"} {
			if slices.Contains(paths, path) {
				p.add("spec.token", "the push has a token, and with another %s it would go elsewhere: give the token too", path)
			}
		}
	}
	return spec, p.result()
}

func checkETag(r *stored, etag string) error {
	if etag == "" || etag == r.etag() {
		return nil
	}
	return rpc.Errorf(codes.Aborted, reasonETag, "push %s has been changed by somebody else: its etag is %s now, not %s; look at it and decide again", r.name, r.etag(), etag).With("etag", r.etag())
}

// start starts a push unless the service is stopping.
func (s *Service) start(p *push) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.start(s.runCtx)
}

// StartPush is idempotent.
func (s *Service) StartPush(ctx context.Context, in *pushv1.StartPushRequest) (*pushv1.StartPushResponse, error) {
	p, err := s.decide(ctx, in.GetName(), func(p *push) error {
		p.mu.Lock()
		again := p.state == pushv1.PushState_PUSH_STATE_FAILED && (p.failure.reason == reasonGone || p.failure.reason == reasonDiffers)
		p.mu.Unlock()
		if _, err := p.write(func() (*stored, error) { return s.store.setWanted(ctx, p.name, wantedRunning, again) }); err != nil {
			return err
		}
		s.start(p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &pushv1.StartPushResponse{Push: p.proto()}, nil
}

// StopPush is idempotent; the wish is durable before the push ends.
func (s *Service) StopPush(ctx context.Context, in *pushv1.StopPushRequest) (*pushv1.StopPushResponse, error) {
	p, err := s.decide(ctx, in.GetName(), func(p *push) error {
		if _, err := p.write(func() (*stored, error) { return s.store.setWanted(ctx, p.name, wantedStopped, false) }); err != nil {
			return err
		}
		p.stop()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &pushv1.StopPushResponse{Push: p.proto()}, nil
}

// decide carries out what a user decides about a push, one decision about it at a time. Those about others do not wait for it: it may
// ask a target that does not answer.
func (s *Service) decide(ctx context.Context, name string, carryOut func(*push) error) (*push, error) {
	for {
		p, err := s.find(ctx, name)
		if err != nil {
			return nil, err
		}
		if err := p.turn.take(ctx); err != nil {
			return nil, err
		}
		if now, _ := s.find(ctx, name); now != p { // it was deleted, and another one may have its name
			p.turn.give()
			continue
		}
		defer p.turn.give()
		return p, carryOut(p)
	}
}
