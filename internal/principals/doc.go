// Package principals keeps the principals of a node in its database, and guards the servers of its processes by them. A call without a
// credential that counts is refused before anything of it is read; a credential that was taken back counts no more after two
// seconds at the latest, and streams that began with it end. Tokens are kept as hashes only.
package principals
