"""Figures by matplotlib, which nothing else imports."""
