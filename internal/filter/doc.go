// Package filter chooses rows of a table by a selector: a JSON object such as {"org": "acme", "age": {"$gte": 18}}. A selector
// means the same in both places where rows are chosen: Matches on a row of the change log and SQL in a snapshot select exactly
// the same rows, and whatever cannot be made to agree is refused before a row is read. A value that cannot be read is an error,
// never a row that is left out.
//
// The values of a row are PostgreSQL's own text of them, printed with postgres.SessionSettings, and SQL has to run in a session
// with the same settings. The package does no I/O.
//
// Logic has three values, as in SQL: a comparison with NULL is unknown, what is not unknown stays unknown, and a row is selected
// only where the whole is true. How types are compared is told in docs/selectors.md for users, and why so in
// docs/adr/0014-selectors.md.
//
// The way of a selector: json.go reads JSON strictly, parse.go makes the tree of conditions, canonical.go brings it into its one
// form, compile.go meets it with the columns of a table, and from there match.go evaluates and sql.go prints.
package filter
