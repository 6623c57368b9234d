//! The VDN contract v1 below `/vdn/v1`, one file per resource. The OpenAPI document is made from
//! these routes, so that neither can say what the other does not.
//!
//! | path | verbs |
//! | --- | --- |
//! | `/invitations` | POST InviteRequest → Invitation |
//! | `/enrolments` | POST Enrolment → Enrolled (open: the secret is the credential) |
//! | `/federations` | POST FederationHello → FederationHello (open: the secret is the credential) |
//! | `/domains` | GET, POST Accept → Domain; `/domains/{name}` GET |
//! | `/domain_document` | GET SignedDocument |
//! | `/hosts` | GET; `/hosts/{id}` PUT HostSpec → Host, GET, DELETE |
//! | `/slices` | GET `?name=`, POST SliceSpec → Slice `?dry_run=true`; `/slices/{id}` GET, DELETE (If-Match) |
//! | `/slices/{id}/actions/{action}` | POST: commit, abort, provision, release, terminate, extend (Extend) → Slice |
//! | `/slices/{id}/members/{host}` | PUT Member → Slice, DELETE |
//! | `/slices/{id}/enforcement/{host}` | PUT Enforcement → Slice |
//! | `/slices/{id}/leases` | GET, POST LeaseRequest → Lease |
//! | `/leases` | GET `?node=`; `/leases/{id}` GET, PATCH LeasePatch → Lease, DELETE |
//! | `/leases:renew` | POST RenewBatch → List of RenewResult |
//! | `/availability` | POST AvailabilityQuery → Availability |
//! | `/stitches` | GET, POST StitchSpec → Stitch `?dry_run=true`; `/stitches/{id}` GET |
//! | `/stitches/inbound` | POST StitchProposal → Stitch (other domains alone) |
//! | `/stitches/{id}/actions/{action}` | POST: commit, abort, terminate, extend (Extend) → Stitch |
//! | `/topology`, `/events?after=` | GET |
//! | `/openapi.json`, `/healthz`, `/readyz`, `/metrics` | GET |
//!
//! **Headers.** POST on slices, leases and stitches needs an `Idempotency-Key`: it is kept for 24 h,
//! the same key with the same body brings the first answer again (`Idempotency-Replayed: true`),
//! with another body 422. Refusals are not kept: they have changed nothing. Every representation
//! has an `ETag`; `If-Match` is honoured on every write of one, and DELETE of a slice demands it.
