//! The snmp driver.
