echo loaded
exit 0
