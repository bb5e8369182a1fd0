//! A line from a projector: every way in which the driver reads it.

#![no_main]

use av_agent::pjlink::protocol;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &str| {
    let _ = protocol::parse_greeting(line);
    for query in protocol::Query::ALL {
        if let Some(protocol::Answer::Value(value)) = protocol::parse_answer(line, query) {
            let _ = protocol::parse_power(&value);
            let _ = protocol::parse_errors(&value);
            let _ = protocol::parse_lamps(&value);
            let _ = protocol::parse_input(&value);
        }
    }
});
