//! What a projector sends over TCP: the bytes put together to lines, each line
//! read in every way in which the driver does.

#![no_main]

use av_agent::pjlink::lines::Lines;
use av_agent::pjlink::protocol::{self, Answer, Class, Query};
use av_agent::pjlink::value;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = Lines::default();
    // In two pieces, as a slow projector sends.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for piece in [first, second] {
        lines.push(piece);
        while let Ok(Some(line)) = lines.next_line() {
            read(&line);
        }
    }
    if let Some(line) = lines.rest() {
        read(&line);
    }
});

fn read(line: &str) {
    if let Some(greeting) = protocol::parse_greeting(line) {
        assert_eq!(
            protocol::parse_greeting(&greeting.to_string()),
            Some(greeting)
        );
    }
    for query in Query::FIRST.into_iter().chain(Query::rest(Class::Two)) {
        if let Some(Answer::Value(text)) = protocol::parse_answer(line, query) {
            values(&text);
        }
    }
}

fn values(text: &str) {
    let _ = value::Power::parse(text);
    let _ = value::parse_errors(text);
    let _ = value::parse_lamps(text);
    let _ = value::parse_class(text);
    let _ = value::parse_mute(text);
    let _ = value::parse_input(text);
    let _ = value::parse_inputs(text);
    let _ = value::parse_flag(text);
    let _ = value::parse_hours(text);
    if let Some(value::Signal::Picture(resolution)) = value::parse_signal(text) {
        assert_eq!(
            value::parse_resolution(&resolution.to_string()),
            Some(resolution)
        );
    }
}
