package rest

import (
	"bytes"
	"fmt"
	"net/http"

	"google.golang.org/protobuf/proto"

	inventoryv1 "github.com/seed0419d559/syncline/gen/syncline/inventory/v1"
)

// dump serves rows, each on a line, when they are asked for as JSON, and else pieces of the dump as gRPC does.
func (h *Handler) dump(w http.ResponseWriter, r *http.Request, params map[string]string) {
	request := &inventoryv1.DumpRequest{}
	if err := parameters(r, params, request); err != nil {
		WriteError(w, err)
		return
	}
	out := &liner{ResponseWriter: w}
	byRow := rows{out: out}
	readable := request.GetFormat() == inventoryv1.DumpFormat_DUMP_FORMAT_JSON_LINES
	out.serve(r.Context(), h.conn, inventoryv1.InventoryService_Dump_FullMethodName, request, func(data []byte) error {
		answer := &inventoryv1.DumpResponse{}
		if err := proto.Unmarshal(data, answer); err != nil {
			return fmt.Errorf("read dump: %w", err)
		}
		if readable {
			return byRow.take(answer)
		}
		text, err := messageJSON(answer)
		if err != nil {
			return err
		}
		return out.put(text)
	})
}

// rows makes a line of each row of a dump in JSON lines, whose pieces need not end at row ends.
type rows struct {
	out *liner
	row bytes.Buffer // as much of the next row as has come
}

func (r *rows) take(answer *inventoryv1.DumpResponse) error {
	rest := answer.GetData()
	for {
		piece, after, whole := bytes.Cut(rest, []byte{'\n'})
		r.row.Write(piece)
		if !whole {
			break
		}
		if err := r.put(); err != nil {
			return err
		}
		rest = after
	}
	if answer.GetEnd() == nil {
		return nil
	}
	end, err := named("end", answer.GetEnd())
	if err != nil {
		return err
	}
	return r.out.put(end)
}

func (r *rows) put() error {
	for _, part := range [][]byte{[]byte(`{"row":`), r.row.Bytes(), []byte("}\n")} {
		if err := r.out.put(part); err != nil {
			return err
		}
	}
	r.row.Reset()
	return nil
}
