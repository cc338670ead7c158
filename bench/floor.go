package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/seed0419d559/syncline/internal/change"
	"github.com/seed0419d559/syncline/internal/pgoutput"
	"github.com/seed0419d559/syncline/services/logger/walsender"
)

const (
	floorSlot      = "bench_floor"
	largestMessage = 1 << 30 // bytes
)

// floor reads the slot into nothing: no replication in this protocol can be faster than that.
type floor struct {
	lab      *lab
	from     change.LSN
	conn     *walsender.Conn
	received chan struct{} // closed when the reader has ended
	failure  error         // of the reader; to be read after received
	marker   atomic.Int64  // the newest marker whose transaction was read whole
}

func (fl *floor) replicate(ctx context.Context) error {
	if err := publish(ctx, fl.lab); err != nil {
		return err
	}
	conn, err := fl.open(ctx)
	if err != nil {
		return err
	}
	fl.from, err = conn.CreateSlot(ctx, floorSlot)
	if err := errors.Join(err, conn.Close()); err != nil {
		return fmt.Errorf("create slot: %w", err)
	}
	return fl.start(ctx)
}

func (fl *floor) open(ctx context.Context) (*walsender.Conn, error) {
	conn, err := walsender.Open(ctx, fl.lab.primaryURL(), application, largestMessage)
	if err != nil {
		return nil, fmt.Errorf("read the decode floor: %w", err)
	}
	return conn, nil
}

func (fl *floor) start(ctx context.Context) error {
	var err error
	if fl.conn, err = fl.open(ctx); err != nil {
		return err
	}
	version := fl.lab.primary.Binaries().Major * 10000
	if err := fl.conn.Start(ctx, floorSlot, []string{publication}, version, false); err != nil {
		return fmt.Errorf("read the decode floor: %w", err)
	}
	fl.received = make(chan struct{})
	go func(conn *walsender.Conn) {
		defer close(fl.received)
		fl.failure = fl.receive(conn)
	}(fl.conn)
	return nil
}

// receive reads until the session ends. Only what belongs to the marker's table is looked into.
func (fl *floor) receive(conn *walsender.Conn) error {
	var decoder pgoutput.Decoder
	var table uint32
	var marker int64
	for {
		message, err := conn.Receive()
		if err != nil {
			return err
		}
		if message.ReplyRequested {
			if err := conn.SendStatus(fl.from, fl.from, false); err != nil {
				return err
			}
		}
		if len(message.Data) == 0 {
			continue
		}
		switch message.Data[0] {
		case 'R':
			if _, err := decoder.Decode(message.Data); err != nil {
				return err
			}
			if decoder.Relation.Name == markerName {
				table = decoder.Relation.OID
			}
		case 'I':
			if !isInsertInto(message.Data, table) {
				continue
			}
			if marker, err = markerOf(&decoder, message.Data); err != nil {
				return err
			}
		case 'C':
			if marker > 0 {
				fl.marker.Store(marker)
			}
		}
	}
}

// isInsertInto looks at the head of an Insert message, without decoding the row.
func isInsertInto(data []byte, table uint32) bool {
	const head = 1 + 4 // type, table
	return len(data) >= head && binary.BigEndian.Uint32(data[1:]) == table
}

// markerOf reads the row of a marker.
func markerOf(decoder *pgoutput.Decoder, data []byte) (int64, error) {
	if _, err := decoder.Decode(data); err != nil {
		return 0, err
	}
	columns := decoder.Insert.New.Columns()
	_, value := columns.Next()
	return strconv.ParseInt(string(value), 10, 64)
}

func (fl *floor) reached(ctx context.Context, marker int64) error {
	return poll(ctx, lookEvery, func() (bool, error) {
		select {
		case <-fl.received:
			return false, fmt.Errorf("read the decode floor: %w", fl.failure)
		default:
			return fl.marker.Load() >= marker, nil
		}
	})
}

func (fl *floor) stop(ctx context.Context, _ depth) error {
	err := fl.close()
	return errors.Join(err, poll(ctx, lookEvery, func() (bool, error) {
		var active bool
		err := fl.lab.conn.QueryRow(ctx, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", floorSlot).Scan(&active)
		return !active, err
	}))
}

func (fl *floor) settled(context.Context) error { return nil }
func (fl *floor) begin(context.Context) error   { return nil }

func (fl *floor) report(context.Context, figures) error { return nil }

func (fl *floor) close() error {
	if fl.conn == nil {
		return nil
	}
	err := fl.conn.Close()
	<-fl.received
	fl.conn = nil
	return err
}
