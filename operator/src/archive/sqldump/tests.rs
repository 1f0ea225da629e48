//! SQL text as pg_dump writes it, cut, split and full of things that only look like COPY or like the end.

use proptest::prelude::*;

use super::*;

const DUMP: &str = r#"--
-- PostgreSQL database dump
--

\restrict 963TDAx8bZt0

SET standard_conforming_strings = on;

--
-- Name: f(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.f() RETURNS text
    LANGUAGE sql
    AS $_$
COPY public.fake (a) FROM stdin;
-- PostgreSQL database dump complete
select '$$', $1 $_$;

CREATE FUNCTION public.g(integer) RETURNS text
    LANGUAGE sql
    BEGIN ATOMIC
 SELECT ($1)::text || 'it''s; COPY public.fake2 FROM stdin;' || E'\'; COPY x.y FROM stdin;';
END;

COMMENT ON FUNCTION public.f() IS 'ends
-- PostgreSQL database dump complete
with '' and \ and "';

/* COPY public.fake3 FROM stdin; /* nested */ ; */
CREATE TABLE public."a""b
; COPY fake4 FROM stdin;" (
    i integer DEFAULT 1 - -1
);

COPY public.orders (id, "odd name") FROM stdin;
1	one\nline
2	\\.
3	\\.\\
\N	-- PostgreSQL database dump complete
\.


COPY public."a""b
; COPY fake4 FROM stdin;" (i) FROM stdin;
\.


COPY public.nothing  FROM stdin;


\.


--
-- PostgreSQL database dump complete
--

\unrestrict 963TDAx8bZt0

"#;

const GLOBALS: &str = "--
-- PostgreSQL database cluster dump
--

\\restrict utwq

SET standard_conforming_strings = on;

CREATE ROLE \"odd'role\";
COMMENT ON ROLE \"odd'role\" IS 'a \\';

\\unrestrict utwq

--
-- PostgreSQL database cluster dump complete
--

";

fn read(kind: SqlDump, pieces: &[&[u8]]) -> Result<Inspection, Failure> {
    let mut reader = SqlDumpReader::new("dump of database shop", kind);
    for piece in pieces {
        reader.feed(piece)?;
    }
    reader.finish()
}

#[test]
fn counts_rows_of_copy_and_of_nothing_that_only_looks_like_it() {
    let found = read(SqlDump::Database, &[DUMP.as_bytes()]).unwrap();
    let counts: Vec<_> = found.items.iter().map(|item| (item.name.as_str(), item.count)).collect();
    assert_eq!(
        counts,
        [("public.orders", 4), ("public.\"a\"\"b\n; COPY fake4 FROM stdin;\"", 0), ("public.nothing", 2)]
    );
}

#[test]
fn text_cut_anywhere_is_found() {
    for (kind, text) in [(SqlDump::Database, DUMP), (SqlDump::Cluster, GLOBALS)] {
        assert!(read(kind, &[text.as_bytes()]).is_ok());
        for end in 0..text.len() {
            let failure = read(kind, &[&text.as_bytes()[..end]]).unwrap_err();
            assert_eq!(failure.reason, Reason::SourceIncomplete, "{end}: {failure}");
        }
        let more = format!("{text}SELECT 1;\n\n");
        assert!(read(kind, &[more.as_bytes()]).unwrap_err().message.contains("after its end marker"));
    }
}

#[test]
fn dumps_of_older_tools_have_no_restricted_mode() {
    let old = DUMP.replace("\\restrict 963TDAx8bZt0\n\n", "").replace("\\unrestrict 963TDAx8bZt0\n\n", "");
    assert_eq!(read(SqlDump::Database, &[old.as_bytes()]).unwrap().items.len(), 3);
    for end in 0..old.len() {
        assert!(read(SqlDump::Database, &[&old.as_bytes()[..end]]).is_err(), "{end}");
    }
}

#[test]
fn strings_of_servers_with_old_backslashes_are_read() {
    let text = DUMP
        .replace("standard_conforming_strings = on", "standard_conforming_strings = off")
        .replace("with '' and \\ and \"'", "with \\' and \\\\ and \"'");
    assert_eq!(read(SqlDump::Database, &[text.as_bytes()]).unwrap().items.len(), 3);
}

#[test]
fn the_end_of_another_kind_of_dump_is_no_end() {
    assert!(read(SqlDump::Cluster, &[DUMP.as_bytes()]).is_err());
    assert!(read(SqlDump::Database, &[GLOBALS.as_bytes()]).is_err());
}

#[test]
fn commands_for_psql_that_no_tool_writes_are_refused() {
    for command in [
        "\\! touch /tmp/x",
        "\\copy a from program 'x'",
        "SELECT 1 \\g |sh",
        "\\unrestrict 963TDAx8bZt0",
        "\\restrict again",
    ] {
        let text = DUMP.replacen("COPY public.orders", &format!("{command}\nCOPY public.orders"), 1);
        let failure = read(SqlDump::Database, &[text.as_bytes()]).unwrap_err();
        assert!(failure.message.contains("a command for psql"), "{command}: {failure}");
    }
}

proptest! {
    #[test]
    fn borders_of_pieces_change_nothing(mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..60)) {
        let bytes = DUMP.as_bytes();
        let mut ends: Vec<usize> = cuts.drain(..).map(|cut| cut.index(bytes.len())).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        let mut start = 0;
        let pieces: Vec<&[u8]> = ends.iter().map(|end| &bytes[std::mem::replace(&mut start, *end)..*end]).collect();
        prop_assert_eq!(read(SqlDump::Database, &pieces).unwrap(), read(SqlDump::Database, &[bytes]).unwrap());
    }

    #[test]
    fn small_pieces_change_nothing(size in 1usize..9) {
        let pieces: Vec<&[u8]> = DUMP.as_bytes().chunks(size).collect();
        prop_assert_eq!(read(SqlDump::Database, &pieces).unwrap().items.len(), 3);
    }

    #[test]
    fn damage_never_panics(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), size in 1usize..64) {
        let mut bytes = DUMP.as_bytes().to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        let _ = read(SqlDump::Database, &pieces);
    }

    #[test]
    fn rows_are_counted_whatever_they_hold(rows in prop::collection::vec("[a-z\\\\\t.]{0,6}", 0..40), size in 1usize..40) {
        let rows_text: String = rows.iter().map(|row| row.replace('\\', "\\\\") + "\n").collect();
        let text = format!("COPY a.b (c) FROM stdin;\n{rows_text}\\.\n\n--\n-- PostgreSQL database dump complete\n--\n\n");
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        prop_assert_eq!(read(SqlDump::Database, &pieces).unwrap().items[0].count, i64::try_from(rows.len()).unwrap());
    }
}
