"""Custody: a register epoch's sealing key exists only as shares that a quorum of custodians opens for one request.

Pure: randomness and the present moment come in as arguments. The way of a key, and where each step lives:

    ceremony   seed -> shares, commitments, custody record                 custody.ceremony, flows.ceremony
    request    what an embassy asks for, with a key for this one session   custody.request, flows.request
    approval   one custodian's re-sealed shares, or his refusal, signed    custody.approval, flows.approve
    opening    enough approvals -> `Authorised` -> the key, in the keyholder process only

What an activating or restoring process needs (it never sees a seed):

    papers = flows.papers.load(realm_id, charter_folder, annex_file)        # verified charters, names, records
    with KeyholderClient.open(papers, request, approvals, seed_file) as opener:   # agents.keyholder_client
        opener.request                      # what was approved: .registers (id, epoch), .at, .snapshot, .not_after
        opener.content_key(header)          # sealed.keys.Opener
        opener.content_keys(headers)        # the same for many headers, in one message a few hundred
        opener.opened()                     # containers opened so far, by register id
        opener.hardening                    # what protects the keyholder's memory here: name -> holds or not

`request` and each of `approvals` are the bytes of the files that `exclave request` and `exclave approve` wrote;
`seed_file` is `flows.request.seed_file(state folder, request)`. `open` raises QuorumMissing (exit code 5) with who
has approved, Refused for approvals that are late, doubled, foreign or for another request, Tampered for wrong
signatures or shares. Later calls raise Refused for what the request does not name or after its deadline, and
Unreachable ("keyholder-gone") when the keyholder process has died.

At home: `flows.ceremony.hold(...)` makes everything, `keyfiles.read_write_keys(folder, charter, register)` gives
`WriteKeys`. Local folders: `<charter folder>/<version, 8 hex digits>.note` and
`<charter folder>/custody/<register>-<epoch>.note`, and the annex file; `papers.place(papers, store)` puts what
hosts may hold into a store, `papers.fetch(store, realm_id, annex_file)` gets it back.
"""
