#!/bin/sh
echo trained
