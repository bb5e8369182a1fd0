//! The icmp driver.
