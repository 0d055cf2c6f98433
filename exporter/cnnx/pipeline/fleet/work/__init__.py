"""Jobs for other machines: what a job is, who does it, and how files reach it."""
