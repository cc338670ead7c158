package pusher

import "context"

// turn is a lock that is waited for no longer than a call lasts.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take returns nil once nobody else has it; give ends that.
func (t turn) take(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) give() { <-t }
