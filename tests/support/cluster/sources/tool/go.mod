module idi.test/tool

go 1.22
