//! The laws of the books: bounded, concluded once, and deaf to what was cleared.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;

use super::{BODY_BYTES_MAX, Books, Connections, Head, ROWS_MAX, Totals};
use crate::row::{Billed, Outcome};

fn head() -> Head {
    let (parts, ()) = Request::new(()).into_parts();
    Head { connection: 1, vendor: "a".to_owned(), parts }
}

fn books() -> Arc<Books> {
    Arc::default()
}

#[test]
fn a_request_is_concluded_once_and_a_dropped_one_as_expected() {
    let books = books();
    let mut entry = books.open(&head());
    assert_eq!(books.snapshot(None).rows[0].outcome, None);
    entry.concludes(Outcome::Complete);
    entry.concludes(Outcome::ClientGone);
    drop(entry);
    drop(books.open(&head()));
    let snapshot = books.snapshot(None);
    let outcomes: Vec<_> = snapshot.rows.iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, [Some(Outcome::Complete), Some(Outcome::ClientGone)]);
    assert_eq!(snapshot.totals, Totals { requests: 2, complete: 1, client_gone: 1, ..Totals::default() });
}

#[test]
fn what_was_cleared_is_not_booked_any_more() {
    let books = books();
    let mut old = books.open(&head());
    books.clear();
    let new = books.open(&head());
    old.adds(Billed { prompt_tokens: 1, completion_tokens: 1 }, 1);
    old.concludes(Outcome::Complete);
    let snapshot = books.snapshot(None);
    assert_eq!(snapshot.totals, Totals { requests: 1, ..Totals::default() });
    assert_eq!(snapshot.rows.len(), 1);
    assert_eq!((snapshot.rows[0].sequence, snapshot.rows[0].outcome), (new.sequence(), None));
}

#[test]
fn rows_beyond_the_bound_are_only_counted() {
    let books = books();
    let billed = Billed { prompt_tokens: 2, completion_tokens: 3 };
    for _ in 0..=ROWS_MAX {
        let mut entry = books.open(&head());
        entry.adds(billed, 1);
        entry.concludes(Outcome::Complete);
    }
    let snapshot = books.snapshot(None);
    let requests = ROWS_MAX as u64 + 1;
    assert_eq!(snapshot.rows.len(), ROWS_MAX);
    assert_eq!((snapshot.totals.requests, snapshot.totals.complete), (requests, requests));
    assert_eq!((snapshot.totals.prompt_tokens, snapshot.totals.rows_left_out), (2 * requests, 1));
}

#[test]
fn bodies_fill_the_books_too() {
    let books = books();
    books.open(&head()).body(&Bytes::from(vec![b' '; BODY_BYTES_MAX]));
    drop(books.open(&head()));
    assert_eq!(books.snapshot(None).totals.rows_left_out, 1);
    books.clear();
    drop(books.open(&head()));
    assert_eq!(books.snapshot(None).rows.len(), 1);
}

#[test]
fn a_control_connection_is_not_counted() {
    let books = books();
    let (vendor, control) = (books.connection(), books.connection());
    control.serves_control();
    control.serves_control();
    assert_eq!(books.snapshot(None).connections, Connections { accepted: 1, open: 1 });
    drop(control);
    drop(vendor);
    assert_eq!(books.snapshot(None).connections, Connections { accepted: 1, open: 0 });
}
