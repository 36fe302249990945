"""Guests of a XenServer or XCP-ng pool, reached over HTTPS from anywhere."""
