"""The wire formats: conversion between bytes and values; no I/O, no framework."""
