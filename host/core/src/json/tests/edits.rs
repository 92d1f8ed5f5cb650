//! What each edit makes of a text.

use super::*;

#[test]
fn set_changes_the_bytes_of_the_value_only() {
    for (text, at, out) in [
        ("{ \"a\" : 1 , \"b\":2}\n", "/a", "{ \"a\" : 0 , \"b\":2}\n"),
        ("\t{ \"a\":1,\"b\" :\r\n2 } ", "/b", "\t{ \"a\":1,\"b\" :\r\n0 } "),
        (r#"{"\u0061":[1]}"#, "/a", r#"{"\u0061":0}"#),
        (r#"{"a": { "b" : {"c" : 1 } , "d":1E+2}}"#, "/a/b/c", r#"{"a": { "b" : {"c" : 0 } , "d":1E+2}}"#),
        // Where there is none, it becomes the last.
        ("{}", "/a", r#"{"a":0}"#),
        (" { } ", "/a", r#" {"a":0 } "#),
        ("{ \"b\": 1\n}", "/a", "{ \"b\": 1,\"a\":0\n}"),
        (r#"{"a":{}}"#, "/a/b", r#"{"a":{"b":0}}"#),
        (r#"{"a":{"x":1 }}"#, "/a/b", r#"{"a":{"x":1,"b":0 }}"#),
        ("{}", "/a~1\"~0", r#"{"a/\"~":0}"#),
        ("{}", "/", r#"{"":0}"#),
        ("{}", "/0", r#"{"0":0}"#),
    ] {
        assert_eq!(edited(text, &[set(at, "0")]).as_deref(), Ok(out), "{text} {at}");
    }
}

#[test]
fn insert_leaves_what_is_there() {
    for (text, at, out) in [
        (r#"{"a": 1}"#, "/a", r#"{"a": 1}"#),
        (r#"{"a": null}"#, "/a", r#"{"a": null}"#),
        (r#"{"\u0061":1}"#, "/a", r#"{"\u0061":1}"#),
        (r#"{"a": {"b" :1}}"#, "/a/b", r#"{"a": {"b" :1}}"#),
        (r#"{"a": 1}"#, "/b", r#"{"a": 1,"b":0}"#),
    ] {
        assert_eq!(edited(text, &[insert(at, "0")]).as_deref(), Ok(out), "{text} {at}");
    }
}

#[test]
fn remove_takes_one_comma_along() {
    for (text, at, out) in [
        (r#"{ "a" : 1 }"#, "/a", "{ }"),
        (r#"{ "a" : 1 , "b": 2 , "c": 3 }"#, "/a", r#"{ "b": 2 , "c": 3 }"#),
        (r#"{ "a" : 1 , "b": 2 , "c": 3 }"#, "/b", r#"{ "a" : 1 , "c": 3 }"#),
        (r#"{ "a" : 1 , "b": 2 , "c": 3 }"#, "/c", r#"{ "a" : 1 , "b": 2  }"#),
        (r#"{"a":{"b":1},"c":2}"#, "/a/b", r#"{"a":{},"c":2}"#),
        (r#"{"a":1}"#, "/b", r#"{"a":1}"#),
        (r#"{"a":1}"#, "/b/c/d", r#"{"a":1}"#),
        (r#"{"\u0061":1,"b":",}"}"#, "/a", r#"{"b":",}"}"#),
    ] {
        assert_eq!(edited(text, &[remove(at)]).as_deref(), Ok(out), "{text} {at}");
    }
}

#[test]
fn move_carries_the_bytes_and_the_newer_name_wins() {
    for (text, from, to, out) in [
        (r#"{"a": 1E+2 ,"b":2}"#, "/a", "/c", r#"{"b":2,"c":1E+2}"#),
        (r#"{"a": { "x" : 1 },"b":{}}"#, "/a", "/b/c", r#"{"b":{"c":{ "x" : 1 }}}"#),
        (r#"{"a":{"x":[ 1 ]}}"#, "/a/x", "/y", r#"{"a":{},"y":[ 1 ]}"#),
        (r#"{"a":1,"b":2}"#, "/a", "/b", r#"{"b":2}"#),
        (r#"{"a":1,"b":null}"#, "/a", "/b", r#"{"b":null}"#),
        (r#"{"a":{"x":1}}"#, "/a/x", "/a", r#"{"a":{}}"#),
        // Nothing to do.
        (r#"{"a": 1}"#, "/a", "/a", r#"{"a": 1}"#),
        (r#"{"a": 1}"#, "/b", "/c", r#"{"a": 1}"#),
        (r#"{"a": 1}"#, "/b/x", "/c/y", r#"{"a": 1}"#),
    ] {
        assert_eq!(edited(text, &[rename(from, to)]).as_deref(), Ok(out), "{text} {from} {to}");
    }
}

#[test]
fn edits_see_the_ones_before() {
    let text = r#"{"model": "a", "max_tokens" :5, "o": {"p": 1}}"#;
    for (edits, out) in [
        (vec![], text),
        (vec![remove("/model"), insert("/model", "1")], r#"{ "max_tokens" :5, "o": {"p": 1},"model":1}"#),
        (vec![rename("/max_tokens", "/m"), set("/m", "7"), remove("/model"), remove("/o")], r#"{"m":7}"#),
        (
            vec![
                set("/o/q", "{ }"),
                set("/o/q/r", "2"),
                rename("/o", "/n"),
                remove("/n/p"),
                remove("/model"),
            ],
            r#"{ "max_tokens" :5,"n":{"q":{"r":2 }}}"#,
        ),
        (
            vec![set("/o/p", "2"), set("/o", "3"), set("/model", "4")],
            r#"{"model": 4, "max_tokens" :5, "o": 3}"#,
        ),
    ] {
        assert_eq!(edited(text, &edits).as_deref(), Ok(out), "{edits:?}");
    }
}

#[test]
fn edits_that_do_not_fit_are_refused_by_name() {
    let text = r#"{"a":1,"n":null,"l":[{"x":1}],"o":{"d":1,"\u0064":2,"e":{}},"d":{},"d":1}"#;
    let missing = |at| SpliceError::MissingParent { at: pointer(at) };
    let not_object = |at| SpliceError::NotAnObject { at: pointer(at) };
    let duplicate = |at| SpliceError::Duplicate(Duplicate { at: pointer(at) });
    for (edit, error) in [
        (set("/x/y", "0"), missing("/x")),
        (insert("/o/x/y/z", "0"), missing("/o/x")),
        (rename("/a", "/x/y"), missing("/x")),
        (rename("/o", "/o/f"), missing("/o")),
        (set("/a/y", "0"), not_object("/a")),
        (insert("/n/y", "0"), not_object("/n")),
        (remove("/a/y"), not_object("/a")),
        (remove("/l/0"), not_object("/l")),
        (set("/l/0/x", "0"), not_object("/l")),
        (rename("/l/0", "/b"), not_object("/l")),
        (rename("/a", "/l/-"), not_object("/l")),
        (set("/d", "0"), duplicate("/d")),
        (insert("/d", "0"), duplicate("/d")),
        (remove("/d"), duplicate("/d")),
        (remove("/d/x"), duplicate("/d")),
        (rename("/d", "/b"), duplicate("/d")),
        (rename("/a", "/d"), duplicate("/d")),
        (set("/o/d", "0"), duplicate("/o/d")),
        (set("", "{}"), SpliceError::WholeText),
        (insert("", "{}"), SpliceError::WholeText),
        (remove(""), SpliceError::WholeText),
        (rename("", "/x"), SpliceError::WholeText),
        (rename("/a", ""), SpliceError::WholeText),
        (rename("", ""), SpliceError::WholeText),
    ] {
        assert_eq!(edited(text, std::slice::from_ref(&edit)), Err(error), "{edit:?}");
    }
    // A duplicate off the path is none of ours.
    assert!(edited(text, &[set("/o/e/x", "0"), remove("/l")]).is_ok());
}

#[test]
fn the_number_of_edits_is_bounded() {
    let edits = vec![set("/a", "1"); EDITS_MAX];
    assert_eq!(edited("{}", &edits).as_deref(), Ok(r#"{"a":1}"#));
    assert_eq!(edited("{}", &vec![set("/a", "1"); EDITS_MAX + 1]), Err(SpliceError::TooManyEdits));
}
