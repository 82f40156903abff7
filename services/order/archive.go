package order

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"orderflow/events"
)

var (
	// errAway: the order is archived in a file that is not here.
	errAway = errors.New("the order's archive file is not here")
	// errArchived: the order's events are in the archive; see archive.read.
	errArchived = errors.New("the order is archived")
	// errArchiveFailed: the archive could not be written.
	errArchiveFailed = errors.New("the archive can't be written")
)

// archive is a directory of files of orders that have ended, gzip-compressed JSON
// Lines that any tool reads. A file is written once and never changed. It is made
// of gzip members of one page of orders each, so that reading one order costs a
// page and not a file.
type archive struct{ dir string } // empty: there is none

// place is where an archived order stands: what remains of it in the state store,
// beside its idempotency fingerprint and its index entries.
type place struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"` // of the gzip member, in bytes
	Line   int    `json:"line"`   // in it, from 0
}

// line is an order in an archive file.
type line struct {
	OrderID string `json:"orderId"`
	document
}

// write makes a file of the orders and answers where each is. The file is whole
// and on disk before it has its name; the name follows from what is in it, so that
// the same orders, archived again after a crash, are the same file. Its error
// wraps errArchiveFailed.
func (a archive) write(orders []line) (places []place, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: %w", errArchiveFailed, err)
		}
	}()
	f, err := os.CreateTemp(a.dir, ".archive-*.tmp")
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name()) // gone already if all went well
	}()
	hash := sha256.New()
	for page := range slices.Chunk(orders, pageSize) {
		offset, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		z := gzip.NewWriter(f)
		out := json.NewEncoder(io.MultiWriter(z, hash))
		for i, o := range page {
			if err := out.Encode(o); err != nil {
				return nil, err
			}
			places = append(places, place{Offset: offset, Line: i})
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
	}
	name := fmt.Sprintf("orders-%s-%s.jsonl.gz", orders[0].Events[0].Time.UTC().Format("20060102T150405Z"), hex.EncodeToString(hash.Sum(nil)[:8]))
	for i := range places {
		places[i].File = name
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(f.Name(), filepath.Join(a.dir, name)); err != nil {
		return nil, err
	}
	return places, syncDir(a.dir)
}

// syncDir makes sure that the names in dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// read answers the events of the orders at those places, by order id. Those whose
// file is not here are left out.
func (a archive) read(places map[string]place) (map[string][]events.Event, error) {
	type member struct {
		file   string
		offset int64
	}
	wanted := map[member][]string{}
	for id, p := range places {
		m := member{p.File, p.Offset}
		wanted[m] = append(wanted[m], id)
	}
	histories := make(map[string][]events.Event, len(places))
	for m, ids := range wanted {
		page, err := a.page(m.file, m.offset)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("archive file %s at %d: %w", m.file, m.offset, err)
		}
		for _, id := range ids {
			n := places[id].Line
			if n >= len(page) || page[n].OrderID != id {
				return nil, fmt.Errorf("archive file %s at %d: line %d is not order %s", m.file, m.offset, n, id)
			}
			histories[id] = page[n].Events
		}
	}
	return histories, nil
}

// page reads a gzip member.
func (a archive) page(file string, offset int64) ([]line, error) {
	if a.dir == "" || filepath.Base(file) != file {
		return nil, fs.ErrNotExist
	}
	f, err := os.Open(filepath.Join(a.dir, file))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	var page []line
	for in := json.NewDecoder(z); ; {
		var l line
		if err := in.Decode(&l); errors.Is(err, io.EOF) {
			return page, nil
		} else if err != nil {
			return nil, err
		}
		page = append(page, l)
	}
}
