"""Traps and informs, sent by Net-SNMP."""
