//! Entries as pg_dump writes them, against what roles may do.

use super::*;

fn entry(id: i64, kind: &str, tag: &str, owner: &str, definition: &str, needs: &[i64]) -> ContentsEntry {
    ContentsEntry {
        id,
        kind: kind.into(),
        tag: tag.into(),
        schema: if matches!(kind, "TABLE" | "TABLE DATA" | "POLICY" | "FUNCTION" | "TYPE") {
            "public".into()
        } else {
            String::new()
        },
        owner: owner.into(),
        definition: definition.into(),
        cut: false,
        dependencies: needs.to_vec(),
        has_data: kind == "TABLE DATA",
    }
}

fn superuser() -> Rights {
    Rights {
        user: "root".into(),
        superuser: true,
        major: 18,
        roles: [("root", true), ("app", true), ("reader", true)].map(|(name, acts)| (name.into(), acts)).into(),
        owns_public: true,
        ..Rights::default()
    }
}

/// The owner of the database, with a role that it is a member of and one that it is not.
fn owner() -> Rights {
    let roles = [("app", true), ("group", true), ("other", false), ("postgres", false), ("reader", false)];
    Rights {
        user: "app".into(),
        superuser: false,
        major: 18,
        roles: roles.map(|(name, acts)| (name.into(), acts)).into(),
        owns_public: true,
        create_in_public: ["app".to_owned()].into(),
        create_in_database: ["app".to_owned()].into(),
        untrusted_languages: ["c".to_owned(), "internal".to_owned()].into(),
        ..Rights::default()
    }
}

const DROP_OWNER: Change = Change::Rewrite { drop_owner: true, definition: None };

fn leaves(decision: &Decision) -> Vec<(&str, bool)> {
    decision.left_out.iter().map(|left| (left.what.as_str(), left.carries_meaning)).collect()
}

#[test]
fn nothing_is_changed_for_who_may_do_all_of_it() {
    let entries = [
        entry(1, "SCHEMA", "public", "app", "", &[]),
        entry(2, "TABLE", "t", "app", "", &[]),
        entry(3, "ACL", "TABLE t", "app", "GRANT SELECT ON TABLE public.t TO reader;\n", &[2]),
        entry(4, "POLICY", "t p", "app", "CREATE POLICY p ON public.t TO reader USING (true);\n", &[2]),
        entry(5, "EVENT TRIGGER", "e", "root", "CREATE EVENT TRIGGER e …", &[]),
        entry(6, "COMMENT", "EXTENSION x", "", "COMMENT ON EXTENSION x IS 'y';\n", &[]),
        entry(7, "DATABASE", "shop", "nobody", "", &[]),
        entry(8, "ACL", "FUNCTION f()", "", "GRANT ALL ON FUNCTION pg_catalog.f() TO app;\n", &[999]),
    ];
    let decision = decide(&entries, &superuser());
    assert_eq!(decision, Decision::default());
    assert_eq!(decision.refusal("root", Tolerance::Nothing), None);
}

#[test]
fn owners_and_grants_come_back_as_far_as_their_roles_are_there() {
    let entries = [
        entry(1, "TABLE", "mine", "app", "", &[]),
        entry(2, "TABLE", "theirs", "gone", "", &[]),
        entry(3, "TABLE", "others", "other", "", &[]),
        entry(4, "TABLE", "groups", "group", "", &[]),
        entry(5, "SCHEMA", "s", "group", "", &[]),
        entry(
            6,
            "ACL",
            "TABLE mine",
            "app",
            "GRANT SELECT ON TABLE public.mine TO gone;\nGRANT SELECT ON TABLE public.mine TO reader;\n",
            &[1],
        ),
        entry(7, "ACL", "TABLE theirs", "gone", "GRANT SELECT ON TABLE public.theirs TO gone2;\n", &[2]),
        entry(8, "SCHEMA", "public", "postgres", "-- *not* creating schema", &[]),
        ContentsEntry { schema: "s".into(), ..entry(9, "TABLE", "in_s", "group", "", &[]) },
    ];
    let decision = decide(&entries, &owner());
    let reader = "GRANT SELECT ON TABLE public.mine TO reader;\n".to_owned();
    assert_eq!(
        decision.changes,
        BTreeMap::from([
            (2, DROP_OWNER),
            (3, DROP_OWNER),
            (4, DROP_OWNER),
            (6, Change::Rewrite { drop_owner: false, definition: Some(reader) }),
            (7, Change::LeaveOut),
            (8, DROP_OWNER),
        ])
    );
    assert_eq!(decision.refusal("app", Tolerance::Descriptions), None);
    assert_eq!(
        decision.notes("app"),
        [
            "not on this server: roles gone, gone2: what was theirs belongs to app, what was granted to them is not granted",
            "app may not act for roles other, postgres: what was theirs belongs to app",
            "role group may not create where their things are: these belong to app",
        ]
    );
    let refusal = decision.refusal("app", Tolerance::Nothing).unwrap();
    assert!(refusal.contains("app may not act for roles other, postgres"), "{refusal}");
}

#[test]
fn what_only_describes_is_left_out_and_what_carries_meaning_is_refused() {
    let trigger = "CREATE EVENT TRIGGER e ON ddl_command_start\n   EXECUTE FUNCTION public.f();\n";
    let entries = [
        entry(1, "EXTENSION", "x", "", "CREATE EXTENSION IF NOT EXISTS x WITH SCHEMA public;\n", &[]),
        entry(2, "COMMENT", "EXTENSION x", "", "COMMENT ON EXTENSION x IS 'another';\n", &[1]),
        entry(3, "COMMENT", "EXTENSION y", "", "COMMENT ON EXTENSION y IS 'it''s y';\n", &[1]),
        entry(
            4,
            "DEFAULT ACL",
            "DEFAULT PRIVILEGES FOR TABLES",
            "postgres",
            "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT SELECT ON TABLES TO app;\n",
            &[],
        ),
        entry(5, "ACL", "FUNCTION x_f()", "postgres", "GRANT ALL ON FUNCTION public.x_f() TO app;\n", &[999]),
        entry(
            6,
            "ACL",
            "TABLE t",
            "app",
            "SET SESSION AUTHORIZATION group;\nGRANT SELECT ON TABLE public.t TO reader;\nRESET SESSION AUTHORIZATION;\n",
            &[1],
        ),
    ];
    let mut rights = owner();
    let extension = |comment: &str| Extension { mine: false, comment: Some(comment.to_owned()) };
    rights.extensions = [("x".to_owned(), extension("x")), ("y".to_owned(), extension("it's y"))].into();
    let decision = decide(&entries, &rights);
    assert_eq!(
        leaves(&decision),
        [
            ("comment on extension x", false),
            ("default privileges for tables", false),
            ("grants on function x_f()", false),
            ("what was granted by others than the owner of table t", false),
        ]
    );
    assert_eq!(decision.changes.keys().collect::<Vec<_>>(), [&2, &3, &4, &5, &6]);
    assert_eq!(decision.refusal("app", Tolerance::Descriptions), None);
    assert!(decision.refusal("app", Tolerance::Nothing).is_some());

    let entries = [
        entry(
            1,
            "FUNCTION",
            "f()",
            "app",
            "CREATE FUNCTION public.f() RETURNS event_trigger\n    LANGUAGE plpgsql\n    AS $$",
            &[],
        ),
        entry(2, "EVENT TRIGGER", "e", "postgres", trigger, &[1]),
        entry(3, "COMMENT", "EVENT TRIGGER e", "", "", &[2]),
        entry(
            4,
            "PUBLICATION",
            "everything",
            "postgres",
            "CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert');\n",
            &[],
        ),
        entry(
            5,
            "PUBLICATION",
            "\" FOR ALL \"",
            "app",
            "CREATE PUBLICATION \" FOR ALL \" WITH (publish = 'insert');\n",
            &[],
        ),
        entry(
            6,
            "SUBSCRIPTION",
            "s",
            "postgres",
            "CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p WITH (connect = false);\n",
            &[],
        ),
        entry(7, "SECURITY LABEL", "TABLE t", "", "SECURITY LABEL FOR p ON TABLE public.t IS 'x';\n", &[1]),
    ];
    let decision = decide(&entries, &owner());
    assert_eq!(
        leaves(&decision),
        [
            ("event trigger e", true),
            ("publication everything", true),
            ("subscription s", true),
            ("security label on table t", true),
        ]
    );
    assert_eq!(decision.changes.get(&3), Some(&Change::LeaveOut));
    let refusal = decision.refusal("app", Tolerance::Descriptions).unwrap();
    assert!(
        refusal.contains(": event trigger e (only a superuser may make it): CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION public.f();"),
        "{refusal}"
    );
    assert!(
        refusal.starts_with("restore with a superuser, or leave it out with onUnrestorable: Report and have a superuser run it afterwards: "),
        "{refusal}"
    );
    assert_eq!(decision.refusal("app", Tolerance::AllButRows), None);
}

#[test]
fn policies_and_mappings_of_roles_that_are_not_there_are_never_lost_unsaid() {
    let entries = [
        entry(1, "TABLE", "t", "root", "", &[]),
        entry(2, "POLICY", "t gone", "root", "CREATE POLICY gone ON public.t FOR SELECT TO gone USING (true);\n", &[1]),
        entry(3, "POLICY", "t both", "root", "CREATE POLICY both ON public.t TO gone, reader USING (true);\n", &[1]),
        entry(4, "POLICY", "t all", "root", "CREATE POLICY all ON public.t USING (true);\n", &[1]),
        entry(5, "USER MAPPING", "USER MAPPING gone SERVER s", "root", "CREATE USER MAPPING FOR gone SERVER s;\n", &[]),
        entry(6, "COMMENT", "POLICY gone ON t", "", "", &[2]),
    ];
    let decision = decide(&entries, &superuser());
    assert_eq!(
        leaves(&decision),
        [("policy public.t gone", true), ("policy public.t both", true), ("user mapping gone SERVER s", true)]
    );
    let narrowed = "CREATE POLICY both ON public.t TO reader USING (true);\n".to_owned();
    assert_eq!(
        decision.changes,
        BTreeMap::from([
            (2, Change::LeaveOut),
            (3, Change::Rewrite { drop_owner: false, definition: Some(narrowed) }),
            (5, Change::LeaveOut),
            (6, Change::LeaveOut),
        ])
    );
    // Who is no superuser has no less to lose.
    assert_eq!(leaves(&decide(&entries, &owner())), leaves(&decision));
    let refusal = decision.refusal("root", Tolerance::Descriptions).unwrap();
    assert!(refusal.contains("CREATE ROLE gone NOLOGIN;"), "{refusal}");
    assert!(refusal.starts_with("make the roles before, or leave it out with onUnrestorable: Report: "), "{refusal}");
}

#[test]
fn rows_are_never_left_out() {
    let entries = [
        entry(
            1,
            "TYPE",
            "odd",
            "postgres",
            "CREATE TYPE public.odd (\n    INTERNALLENGTH = 8,\n    INPUT = public.odd_in,\n",
            &[],
        ),
        entry(2, "TABLE", "t", "app", "", &[1]),
        entry(3, "TABLE DATA", "t", "app", "", &[2]),
        entry(
            4,
            "FUNCTION",
            "f()",
            "app",
            "CREATE FUNCTION public.f() RETURNS integer\n    LANGUAGE c\n    AS 'x', 'y';\n",
            &[],
        ),
    ];
    let decision = decide(&entries, &owner());
    assert_eq!(
        leaves(&decision),
        [
            ("type public.odd", true),
            ("function public.f()", true),
            ("table public.t", true),
            ("table data public.t", true)
        ]
    );
    let refusal = decision.refusal("app", Tolerance::AllButRows).unwrap();
    assert!(refusal.contains("rows would be lost without it"), "{refusal}");
}

#[test]
fn what_is_told_of_connections_and_options_holds_no_string_of_theirs() {
    let shown = |kind, text| statement(&entry(1, kind, "s", "root", text, &[]));
    let connection = "CREATE SUBSCRIPTION s CONNECTION 'host=h password=it''s' PUBLICATION p WITH (slot_name = 's');";
    assert_eq!(
        shown("SUBSCRIPTION", connection),
        "CREATE SUBSCRIPTION s CONNECTION '…' PUBLICATION p WITH (slot_name = '…');"
    );
    let escaped = r#"CREATE SERVER s FOREIGN DATA WRAPPER "it's" OPTIONS (a E'x\\\'y', password 'secret');"#;
    assert_eq!(
        shown("SERVER", escaped),
        r#"CREATE SERVER s FOREIGN DATA WRAPPER "it's" OPTIONS (a E'…', password '…');"#
    );
    assert_eq!(shown("SERVER", "CREATE SERVER s OPTIONS (password 'cut"), "CREATE SERVER s OPTIONS (password '…'");
    let function = "CREATE FUNCTION f() RETURNS int\n    LANGUAGE plperlu\n    AS $$ my $password = 'secret' $$;\n";
    assert_eq!(shown("FUNCTION", function), "CREATE FUNCTION f() RETURNS int LANGUAGE plperlu");
}

#[test]
fn what_is_not_known_byte_for_byte_is_never_written_anew() {
    let grants = "GRANT SELECT ON TABLE t TO app;\nGRANT SELECT ON TABLE t TO gone;\n";
    for (cut, definition) in
        [(true, grants.to_owned()), (false, grants.replace("TABLE t TO app", "TABLE \u{fffd} TO app"))]
    {
        let acl = ContentsEntry { cut, ..entry(1, "ACL", "TABLE t", "app", &definition, &[]) };
        let decision = decide(&[acl], &superuser());
        assert_eq!(decision.changes.get(&1), Some(&Change::LeaveOut));
        assert!(decision.refusal("root", Tolerance::Descriptions).is_some(), "{decision:?}");
    }
    // What names nobody who is missing passes as it is, and so does a role whose name is in another encoding.
    for role in ["app", "ren\u{fffd}"] {
        let definition = format!("GRANT SELECT ON TABLE t TO {role};\n");
        let acl = ContentsEntry { cut: true, ..entry(1, "ACL", "TABLE t", "app", &definition, &[]) };
        assert!(decide(&[acl], &superuser()).changes.is_empty(), "{role}");
    }
}
