package restore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/seed0419d559/syncline/internal/backup"
	"github.com/seed0419d559/syncline/internal/fault"
	"github.com/seed0419d559/syncline/internal/postgres"
)

// errSuperseded says that another restore has begun meanwhile.
var errSuperseded = errors.New("another restore has begun in this database")

// piece is one file that is not loaded yet.
type piece struct {
	table backup.Table
	file  backup.File
}

// load loads the files that are not loaded yet, several at the same time.
func (r *restorer) load(ctx context.Context) error {
	done, err := r.loaded(ctx)
	if err != nil {
		return err
	}
	var todo []piece
	var total int64
	for _, t := range r.backup.Manifest.Tables {
		for _, f := range t.Files {
			if !done[f.Name] {
				todo = append(todo, piece{t, f})
				total += f.Bytes
			}
		}
	}
	if len(done) > 0 {
		r.options.Say(fmt.Sprintf("%d files are loaded already, %d are left", len(done), len(todo)))
	}
	r.options.Progress.Begin("loading", total)
	pieces := make(chan piece, len(todo))
	for _, p := range todo {
		pieces <- p
	}
	close(pieces)
	group, ctx := errgroup.WithContext(ctx)
	for range min(max(r.options.Workers, 1), len(todo)) {
		group.Go(func() error { return r.loader(ctx, pieces) })
	}
	return group.Wait()
}

func (r *restorer) loaded(ctx context.Context) (map[string]bool, error) {
	rows, err := r.target.conn.Query(ctx, "SELECT file FROM syncline.restored_files WHERE restore_id = $1", r.id)
	if err != nil {
		return nil, fmt.Errorf("read which files are loaded: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read which files are loaded: %w", err)
	}
	done := make(map[string]bool, len(names))
	for _, name := range names {
		done[name] = true
	}
	return done, nil
}

// loader is one session that loads.
func (r *restorer) loader(ctx context.Context, pieces <-chan piece) error {
	conn, err := r.target.connect(ctx)
	if err != nil {
		return err
	}
	defer disconnect(conn)
	for p := range pieces {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := r.loadFile(ctx, conn, p); err != nil {
			return fmt.Errorf("load table %s: %w", p.table.FullName(), err)
		}
	}
	return nil
}

// loadFile loads one file in one transaction with the record that it is loaded.
func (r *restorer) loadFile(ctx context.Context, conn *pgx.Conn, p piece) error {
	rows, err := r.backup.Open(p.file)
	if err != nil {
		return err
	}
	defer rows.Close()
	reader := &remembering{in: rows, read: func(n int) { r.options.Progress.Bytes.Add(int64(n)) }}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		tag, err := tx.Conn().PgConn().CopyFrom(ctx, reader, r.copyStatement(p.table))
		if reader.err != nil {
			return reader.err // the cause of what COPY says
		}
		if err != nil {
			return err
		}
		if tag.RowsAffected() != p.file.Rows {
			return fmt.Errorf("%d rows were loaded of %d in file %s", tag.RowsAffected(), p.file.Rows, p.file.Name)
		}
		tag, err = tx.Exec(ctx, `INSERT INTO syncline.restored_files (restore_id, file)
			SELECT restore_id, $2 FROM syncline.restores WHERE restore_id = $1 AND state = 'restoring'`, r.id, p.file.Name)
		if err != nil {
			return fmt.Errorf("record file %s: %w", p.file.Name, err)
		}
		if tag.RowsAffected() != 1 {
			return errSuperseded
		}
		fault.Point(FaultFileLoaded)
		return nil
	})
	if err != nil {
		return err
	}
	r.options.Progress.Rows.Add(p.file.Rows)
	fault.Point(FaultFileDone)
	return nil
}

func (r *restorer) copyStatement(t backup.Table) string {
	sql := "COPY " + r.plan.targets[t.FullName()].SQL()
	if len(t.Columns) > 0 {
		sql += " (" + postgres.Idents(t.Columns) + ")"
	}
	return sql + " FROM STDIN"
}

// remembering keeps the error of what it reads, which COPY tells in its own words.
type remembering struct {
	in   io.Reader
	read func(n int)
	err  error
}

func (r *remembering) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	r.read(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}
