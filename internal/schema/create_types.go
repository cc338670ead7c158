package schema

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed0419d559/syncline/internal/postgres"
)

func (p *planner) schemas() {
	for _, s := range p.source.Sequences {
		if p.wantsSequence(s) {
			p.needs.schemas[s.Schema] = true
		}
	}
	for _, name := range p.source.Schemas {
		if (p.all || p.needs.schemas[name] || p.extensionIn(name)) && !slices.Contains(p.target.Schemas, name) {
			p.before(StatementSchema, Name{}, name, "CREATE SCHEMA "+postgres.Ident(name))
		}
	}
}

func (p *planner) extensionIn(schema string) bool {
	return slices.ContainsFunc(p.source.Extensions, func(e Extension) bool {
		return e.Schema == schema && p.needs.extensions[e.Name]
	})
}

// extensions: only what is needed. check has made sure that they can be created.
func (p *planner) extensions() {
	for _, e := range p.source.Extensions {
		installed := slices.ContainsFunc(p.target.Extensions, func(x Extension) bool { return x.Name == e.Name })
		if p.needs.extensions[e.Name] && !installed {
			p.before(StatementExtension, Name{}, e.Name, createExtension(e))
		}
	}
}

func (p *planner) collations() {
	for _, c := range p.source.Collations {
		exists := slices.ContainsFunc(p.target.Collations, func(x Collation) bool { return x.FullName() == c.FullName() })
		if p.wantsCollation(c) && !exists {
			p.before(StatementCollation, Name{}, c.FullName().String(), createCollation(c))
		}
	}
}

func createCollation(c Collation) string {
	providers := map[string]string{"b": "builtin", "c": "libc", "i": "icu"}
	options := []string{"provider = " + providers[c.Provider]}
	for _, o := range []struct{ name, value string }{
		{"locale", c.Locale}, {"lc_collate", c.Collate}, {"lc_ctype", c.CType}, {"rules", c.Rules},
	} {
		if o.value != "" {
			options = append(options, o.name+" = "+postgres.Literal(o.value))
		}
	}
	options = append(options, fmt.Sprintf("deterministic = %t", c.Deterministic))
	return fmt.Sprintf("CREATE COLLATION %s (%s)", c.FullName().SQL(), strings.Join(options, ", "))
}

func createType(t Type) string {
	name := t.FullName().SQL()
	switch t.Kind {
	case TypeEnum:
		labels := make([]string, len(t.Labels))
		for i, label := range t.Labels {
			labels[i] = strings.TrimSpace(postgres.Literal(label))
		}
		return fmt.Sprintf("CREATE TYPE %s AS ENUM (%s)", name, strings.Join(labels, ", "))
	case TypeComposite:
		attributes := make([]string, len(t.Attributes))
		for i, a := range t.Attributes {
			attributes[i] = postgres.Ident(a.Name) + " " + a.Type + collate(a.Collation)
		}
		return fmt.Sprintf("CREATE TYPE %s AS (%s)", name, strings.Join(attributes, ", "))
	case TypeRange:
		return createRange(t)
	}
	return createDomain(t)
}

func collate(collation string) string {
	if collation == "" {
		return ""
	}
	return " COLLATE " + collation
}

// createDomain leaves checks that are not validated for later: values that break them may be in the tables.
func createDomain(t Type) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE DOMAIN %s AS %s%s", t.FullName().SQL(), t.Base, collate(t.Collation))
	if t.Default != "" {
		b.WriteString(" DEFAULT " + t.Default)
	}
	if t.NotNull {
		b.WriteString(" NOT NULL")
	}
	for _, k := range t.Constraints {
		if k.Validated {
			fmt.Fprintf(&b, " CONSTRAINT %s %s", postgres.Ident(k.Name), k.Definition)
		}
	}
	return b.String()
}

func createRange(t Type) string {
	options := []string{"subtype = " + t.Base}
	for _, o := range []struct{ name, value string }{
		{"subtype_opclass", t.OperatorClass}, {"collation", t.Collation}, {"subtype_diff", t.Difference},
	} {
		if o.value != "" {
			options = append(options, o.name+" = "+o.value)
		}
	}
	if !t.Multirange.IsZero() {
		options = append(options, "multirange_type_name = "+t.Multirange.SQL())
	}
	return fmt.Sprintf("CREATE TYPE %s AS RANGE (%s)", t.FullName().SQL(), strings.Join(options, ", "))
}

func (p *planner) lateDomainChecks() {
	for _, t := range p.source.Types {
		existing, _ := p.target.typ(t.FullName())
		for _, k := range t.Constraints {
			has := slices.ContainsFunc(existing.Constraints, func(x DomainConstraint) bool { return x.Name == k.Name })
			if p.wantsType(t.FullName()) && !k.Validated && !has {
				p.after(StatementCheck, Name{}, k.Name,
					fmt.Sprintf("ALTER DOMAIN %s ADD CONSTRAINT %s %s", t.FullName().SQL(), postgres.Ident(k.Name), k.Definition), false)
			}
		}
	}
}
