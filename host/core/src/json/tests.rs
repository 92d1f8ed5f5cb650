//! Tables of laws and bounds for reading and editing; `properties` has what holds for any body.

mod edits;
mod properties;

use super::*;

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).unwrap()
}

fn raw(text: &str) -> Raw {
    Raw::parse(text).unwrap()
}

fn set(at: &str, value: &str) -> Edit {
    Edit::Set { at: pointer(at), value: raw(value) }
}

fn insert(at: &str, value: &str) -> Edit {
    Edit::Insert { at: pointer(at), value: raw(value) }
}

fn remove(at: &str) -> Edit {
    Edit::Remove { at: pointer(at) }
}

fn rename(from: &str, to: &str) -> Edit {
    Edit::Move { from: pointer(from), to: pointer(to) }
}

fn edited(text: &str, edits: &[Edit]) -> Result<String, SpliceError> {
    let index = Index::scan(text.as_bytes()).unwrap();
    let out = splice(text.as_bytes(), &index, edits)?;
    Index::scan(&out).unwrap_or_else(|error| panic!("{text} became {}: {error}", out.escape_ascii()));
    Ok(String::from_utf8(out).unwrap())
}

fn found(text: &str, at: &str) -> Result<Option<String>, Duplicate> {
    let index = Index::scan(text.as_bytes()).unwrap();
    let value = get(text.as_bytes(), &index, &pointer(at))?;
    Ok(value.map(|value| String::from_utf8(value.to_vec()).unwrap()))
}

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

#[test]
fn an_index_outlives_its_text_and_crosses_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<Index>();
    crosses::<Edit>();
}

// === scanning ===

#[test]
fn scan_takes_any_json_object() {
    for text in [
        "{}",
        " \t\r\n{ \n}\n",
        r#"{"a":1E+2,"b":-0.0,"c":123456789012345678901234567890,"d":1e999}"#,
        r#"{"\ud800":"\ud800","":null}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"$serde_json::private::RawValue":"1","$serde_json::private::Number":"1"}"#,
        "{\"é\":\"\u{feff}\u{7f}\"}",
    ] {
        assert!(Index::scan(text.as_bytes()).is_ok(), "{text}");
    }
}

#[test]
fn scan_refuses_what_is_not_json() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "{} x",
        "{}{}",
        "{},",
        "[1,]",
        "\u{feff}{}",
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{a:1}"#,
        r#"{'a':1}"#,
        r#"{1:1}"#,
        r#"{"a":NaN}"#,
        r#"{"a":Infinity}"#,
        r#"{"a":-}"#,
        r#"{"a":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":.5}"#,
        r#"{"a":+1}"#,
        r#"{"a":[1,]}"#,
        r#"{"a":[1}}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12"}"#,
        r#"{"\x":1}"#,
        r#"{"a":tru}"#,
        r#"{"a":1} // no"#,
        "{\"a\":\"\n\"}",
        "{\"a\":\"\0\"}",
        "{\"a\n\":1}",
        "{\"a\":1}\0",
        "{\u{a0}}",
    ] {
        let scanned = Index::scan(text.as_bytes());
        assert!(matches!(scanned, Err(ScanError::NotJson { .. })), "{text}: {scanned:?}");
    }
}

#[test]
fn scan_tells_other_values_from_objects() {
    for text in ["[]", " null", "\"secret\"", "17", "[{}]"] {
        assert_eq!(Index::scan(text.as_bytes()).unwrap_err(), ScanError::NotAnObject, "{text}");
    }
}

#[test]
fn scan_says_where_it_stopped_and_quotes_nothing() {
    let error = Index::scan(b"{\n \"secret\": 1,\n \"b\" x}").unwrap_err();
    assert_eq!(error.to_string(), "not JSON at byte 21 (line 3, column 6): expected `:`");
    let error = Index::scan(b"{\"a\": \"secr").unwrap_err();
    assert_eq!(error.to_string(), "not JSON at byte 11 (line 1, column 11): EOF while parsing a string");
    let error = Index::scan(b"{}\n x").unwrap_err();
    assert_eq!(error.to_string(), "not JSON at byte 4 (line 2, column 2): trailing characters");
    let error = Index::scan(b"{\"a\":\"\n\"}").unwrap_err();
    assert!(matches!(error, ScanError::NotJson { offset: 5..=6, .. }), "{error}");
}

#[test]
fn scan_refuses_what_is_not_utf8() {
    for (text, offset) in [(&b"{\"a\":\"\xff\"}"[..], 6), (b"{\"\xc3\":1}", 2), (b"{} \xed\xa0\x80", 3)] {
        assert_eq!(Index::scan(text).unwrap_err(), ScanError::NotUtf8 { offset });
    }
}

#[test]
fn scan_stops_at_the_bound_of_members() {
    let body = |count: usize| {
        let members: Vec<String> = (0..count).map(|n| format!("\"k{n}\":{n}")).collect();
        format!("{{{}}}", members.join(","))
    };
    assert!(Index::scan(body(MEMBERS_MAX).as_bytes()).is_ok());
    let over = body(MEMBERS_MAX + 1);
    assert_eq!(Index::scan(over.as_bytes()).unwrap_err(), ScanError::TooManyMembers);
    // The same below: read without a bound, edited within it.
    let below = |object: &str| format!("{{\"a\":{object}}}");
    assert_eq!(found(&below(&over), &format!("/a/k{MEMBERS_MAX}")), Ok(Some(MEMBERS_MAX.to_string())));
    assert!(edited(&below(&body(MEMBERS_MAX)), &[remove("/a/k7")]).is_ok());
    assert_eq!(
        edited(&below(&over), &[remove("/a/k7")]),
        Err(SpliceError::TooManyMembers { at: pointer("/a") })
    );
}

// === reading ===

#[test]
fn a_member_is_found_by_what_its_key_reads_as() {
    let text = br#"{"mod\u0065l": "m" , "a\/b\n":1, "\ud83d\ude00":2, "plain\\u0061":3}"#;
    let index = Index::scan(text).unwrap();
    assert_eq!(index.member(text, "model"), Ok(Some(&b"\"m\""[..])));
    assert_eq!(index.member(text, r"mod\u0065l"), Ok(None));
    assert_eq!(index.member(text, "a/b\n"), Ok(Some(&b"1"[..])));
    assert_eq!(index.member(text, "😀"), Ok(Some(&b"2"[..])));
    assert_eq!(index.member(text, r"plain\u0061"), Ok(Some(&b"3"[..])));
    assert_eq!(index.member(text, r"plain\\u0061"), Ok(None));
    assert_eq!(index.member(text, "Model"), Ok(None));
    assert_eq!(index.keys(text).collect::<Vec<_>>(), ["model", "a/b\n", "😀", r"plain\u0061"]);
}

#[test]
fn a_lone_surrogate_is_kept_and_is_no_name() {
    let text = br#"{"\ud800":1,"\ufffd":2,"\udc00":3}"#;
    let index = Index::scan(text).unwrap();
    assert_eq!(index.member(text, "\u{fffd}"), Ok(Some(&b"2"[..])));
    assert_eq!(index.keys(text).count(), 3);
    let out = edited(r#"{"\ud800": "\ud800" ,"a":1}"#, &[set("/a", "2"), set("/b", r#""\udfff""#)]);
    assert_eq!(out.unwrap(), r#"{"\ud800": "\ud800" ,"a":2,"b":"\udfff"}"#);
}

#[test]
fn a_duplicate_matters_when_it_is_asked_for() {
    let text = br#"{"a":1,"b/c":2,"\u0062\/c":3}"#;
    let index = Index::scan(text).unwrap();
    assert_eq!(index.member(text, "a"), Ok(Some(&b"1"[..])));
    let duplicate = index.member(text, "b/c").unwrap_err();
    assert_eq!(duplicate.to_string(), "`/b~1c` is given more than once");
    let text = r#"{"a":[{"b":{"c":1},"\u0062":2,"d":3}]}"#;
    assert_eq!(found(text, "/a/0/d"), Ok(Some("3".into())));
    assert_eq!(found(text, "/a/0/b/c"), Err(Duplicate { at: pointer("/a/0/b") }));
    assert_eq!(found(text, "/a/0/b"), Err(Duplicate { at: pointer("/a/0/b") }));
}

#[test]
fn get_follows_objects_and_arrays() {
    let text =
        r#" {"a": {"b~": [10, [ 20 ], {"c/d" :1E+2}], "": 0}, "": {"": 5}, "n": null, "0": {"1": 2}} "#;
    for (at, value) in [
        ("", Some(text)),
        ("/", Some(r#"{"": 5}"#)),
        ("//", Some("5")),
        ("/a/", Some("0")),
        ("/a/b~0/0", Some("10")),
        ("/a/b~0/1", Some("[ 20 ]")),
        ("/a/b~0/1/0", Some("20")),
        ("/a/b~0/2/c~1d", Some("1E+2")),
        ("/0/1", Some("2")),
        ("/n", Some("null")),
        ("/n/x", None),
        ("/a/b~0/3", None),
        ("/a/b~0/-", None),
        ("/a/b~0/", None),
        ("/a/b~0/00", None),
        ("/a/b~0/+1", None),
        ("/a/b~0/99999999999999999999999999", None),
        ("/a/b~0/0/0", None),
        ("/x", None),
        ("/x/y", None),
        ("/A", None),
    ] {
        assert_eq!(found(text, at), Ok(value.map(str::to_owned)), "{at}");
    }
}

#[test]
fn pointers_are_checked_and_bounded() {
    for text in ["", "/", "/a", "/a~0b~1c", "/~01", "//", "/0/é"] {
        assert_eq!(pointer(text).to_string(), text);
    }
    let keys = |text| pointer(text).keys().map(Cow::into_owned).collect::<Vec<_>>();
    assert_eq!(keys(""), Vec::<String>::new());
    assert_eq!(keys("/"), [""]);
    assert_eq!(keys("/~01/a~1b/"), ["~1", "a/b", ""]);
    for text in ["a", "#/a", " /a", "~0"] {
        assert_eq!(Pointer::parse(text), Err(PointerError::NoSlash), "{text}");
    }
    for text in ["/~", "/~2", "/a~/b", "/~~0"] {
        assert_eq!(Pointer::parse(text), Err(PointerError::Tilde), "{text}");
    }
    assert!(Pointer::parse(&"/a".repeat(POINTER_DEPTH_MAX)).is_ok());
    assert_eq!(Pointer::parse(&"/a".repeat(POINTER_DEPTH_MAX + 1)), Err(PointerError::TooDeep));
    let long = format!("/{}", "a".repeat(POINTER_BYTES_MAX - 1));
    assert!(Pointer::parse(&long).is_ok());
    assert_eq!(Pointer::parse(&(long + "a")), Err(PointerError::TooLong));
    assert_eq!(pointer("/a/b/c").upto(2), pointer("/a/b"));
    assert_eq!(pointer("/a/b").upto(2), pointer("/a/b"));
    assert_eq!(pointer("/a/b").upto(0), pointer(""));
}

#[test]
fn typed_readers_are_exact() {
    for (raw, text) in [
        (r#""a""#, Some("a")),
        (r#""\u0061\n""#, Some("a\n")),
        (r#""""#, Some("")),
        (r#""\ud83d\ude00""#, Some("😀")),
        (r#""\ud800""#, None),
        ("1", None),
        ("null", None),
        (r#"["a"]"#, None),
    ] {
        assert_eq!(as_str(raw.as_bytes()).as_deref(), text, "{raw}");
    }
    assert!(matches!(as_str(br#""plain""#), Some(Cow::Borrowed("plain"))));
    for (raw, truth) in [("true", Some(true)), ("false", Some(false)), ("1", None), ("\"true\"", None)] {
        assert_eq!(as_bool(raw.as_bytes()), truth, "{raw}");
    }
    for (raw, number) in [
        ("0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("-1", None),
        ("-0", None),
        ("1e2", None),
        ("1E+2", None),
        ("1.0", None),
        ("\"1\"", None),
        ("null", None),
        ("[1]", None),
    ] {
        assert_eq!(as_u64(raw.as_bytes()), number, "{raw}");
    }
}

#[test]
fn raw_values_are_checked_when_made() {
    assert_eq!(raw(" {\"a\" : 1E+2}\n").as_str(), "{\"a\" : 1E+2}");
    for text in ["", " ", "1,2", "{\"a\":1,}", "NaN", "\u{feff}1", "\"\n\"", "1 1"] {
        assert!(matches!(Raw::parse(text), Err(ScanError::NotJson { .. })), "{text}");
    }
    assert_eq!(Raw::string("a\"\\\n\u{1}é").as_str(), r#""a\"\\\n\u0001é""#);
    assert_eq!(Raw::from(u64::MAX).as_str(), "18446744073709551615");
    assert_eq!((Raw::from(true), Raw::from(false)), (raw("true"), raw("false")));
}

// === editing ===

#[test]
fn depth_of_the_text_takes_no_stack() {
    let deep = nested(100_000);
    let objects = "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000);
    let text = format!(r#"{{"d":{deep},"o":{objects},"p":{{"x":1}}}}"#);
    assert_eq!(found(&text, "/d"), Ok(Some(deep.clone())));
    assert_eq!(found(&text, "/p/x"), Ok(Some("1".into())));
    assert_eq!(found(&text, "/d/0/0").unwrap().map(|inner| inner.len()), Some(deep.len() - 4));
    let deepest = "/a".repeat(POINTER_DEPTH_MAX - 1);
    assert!(found(&text, &format!("/o{deepest}")).unwrap().is_some());
    let edits = [set(&format!("/o{deepest}"), &deep), set("/p/x", &deep), set("/n", &deep)];
    let out = edited(&text, &edits).unwrap();
    assert_eq!(out.matches(&deep).count(), 4);
    assert!(matches!(Index::scan("{\"a\":[".repeat(100_000).as_bytes()), Err(ScanError::NotJson { .. })));
    assert!(matches!(Index::scan(deep.as_bytes()), Err(ScanError::NotAnObject)));
}

/// Each edit moves what was built so far below a fresh chain of objects: the deepest nest of
/// touched objects that the bounds allow must be written and dropped on a small stack.
#[test]
fn depth_of_edits_is_bounded() {
    let chain = |leaf: &str, levels: usize| "{\"k\":".repeat(levels) + leaf + &"}".repeat(levels);
    let levels = POINTER_DEPTH_MAX - 2;
    let mut edits = vec![];
    for round in 0..EDITS_MAX / 2 {
        let from = format!("/c{round}");
        let next = format!("/c{}", round + 1);
        edits.push(set(&next, &chain("{}", levels)));
        edits.push(rename(&from, &format!("{next}{}/z", "/k".repeat(levels))));
    }
    let work = move || edited(r#"{"c0":{"x":1}}"#, &edits).unwrap();
    let small = std::thread::Builder::new().stack_size(1024 * 1024).spawn(work);
    let out = small.unwrap().join().unwrap();
    assert_eq!(out.matches("\"z\":").count(), EDITS_MAX / 2);
    assert_eq!(out.matches("\"k\":").count(), EDITS_MAX / 2 * levels);
}
