package schema

// closure is everything of a database that some tables rest on, through types to any depth.
type closure struct {
	schemas, extensions          map[string]bool
	types, collations, sequences map[Name]bool
	tables                       map[Name]bool // whose row types are used
}

func (d Database) closure(tables []Table) closure {
	c := closure{
		schemas: map[string]bool{}, extensions: map[string]bool{},
		types: map[Name]bool{}, collations: map[Name]bool{}, sequences: map[Name]bool{}, tables: map[Name]bool{},
	}
	own := make(map[Name]bool, len(tables))
	for _, t := range tables {
		own[t.FullName()] = true
		c.schemas[t.Schema] = true
		d.follow(&c, t.Needs)
	}
	for _, s := range d.Sequences {
		if own[s.Owner] {
			c.sequences[s.FullName()] = true
		}
		if c.sequences[s.FullName()] {
			c.schemas[s.Schema] = true
		}
	}
	return c
}

func (d Database) follow(c *closure, needs []Need) {
	for _, n := range needs {
		if n.Extension != "" {
			c.extensions[n.Extension] = true
			continue
		}
		switch n.Kind {
		case "sequence":
			c.sequences[n.Name] = true
		case "table":
			c.tables[n.Name] = true
		case "collation":
			c.collations[n.Name] = true
			c.schemas[n.Name.Schema] = true
		case "type", "composite type":
			if c.types[n.Name] {
				continue
			}
			c.types[n.Name] = true
			c.schemas[n.Name.Schema] = true
			if t, found := d.typ(n.Name); found {
				d.follow(c, t.Needs)
			}
		}
	}
}
